// Pays as a buyer's wallet does, from a coin of regtest, built, signed and broadcast through bitcoinjs-lib:
// { rpc, secret, coin: { txid, vout, sats }, outputs: [{ address, sats }] | uri, fee, replaceable? } -> { txid, hex }.
// `secret` is the private key in hexadecimal; the coin is the P2WPKH output of its public key, and so is the change.
// `uri` is a BIP21 text; amounts are in satoshi elsewhere.
import * as ecc from '@bitcoinerlab/secp256k1'
import * as bip21 from 'bip21'
import * as bitcoin from 'bitcoinjs-lib'
import { answer, broadcastBitcoin } from './oracle.mjs'

bitcoin.initEccLib(ecc)
const network = bitcoin.networks.regtest

/** As wallets do that stand on the package `bip21`; it writes again what it read. */
function fromUri(uri) {
  const { address, options } = bip21.decode(uri)
  if (bip21.encode(address, options) !== uri) throw new Error(`${uri} is written otherwise by others`)
  return { address, sats: BigInt(Math.round(options.amount * 1e8)) }
}

await answer(async ({ rpc, secret, coin, outputs, uri, fee, replaceable = false }) => {
  const privateKey = Buffer.from(secret, 'hex')
  const publicKey = Buffer.from(ecc.pointFromScalar(privateKey, true))
  const signer = { publicKey, sign: (hash) => Buffer.from(ecc.sign(hash, privateKey)) }
  const { output: script } = bitcoin.payments.p2wpkh({ pubkey: publicKey, network })
  const wanted = uri ? [fromUri(uri)] : outputs.map(({ address, sats }) => ({ address, sats: BigInt(sats) }))

  const psbt = new bitcoin.Psbt({ network })
  psbt.addInput({
    hash: coin.txid,
    index: coin.vout,
    sequence: replaceable ? 0xfffffffd : 0xffffffff,
    witnessUtxo: { script, value: BigInt(coin.sats) },
  })
  for (const { address, sats } of wanted) psbt.addOutput({ address, value: sats })
  const spent = wanted.reduce((sum, { sats }) => sum + sats, BigInt(fee))
  psbt.addOutput({ script, value: BigInt(coin.sats) - spent })
  psbt.signAllInputs(signer)
  psbt.finalizeAllInputs()
  const tx = psbt.extractTransaction()
  return { txid: await broadcastBitcoin(rpc, tx), hex: tx.toHex() }
})
