// Spends outputs as a wallet does into which the seed was typed, through bitcoinjs-lib:
// { rpc, mnemonic, path, kind, outputs: [{ txid, vout, sats, index, address }], fee } -> { txid }.
// `kind` is "p2wpkh" or "p2tr"; the keys are those of `path`/0/index, and all but the fee goes back to the first of them. An
// output whose address is not that of its key is refused.
import * as ecc from '@bitcoinerlab/secp256k1'
import { BIP32Factory } from 'bip32'
import * as bip39 from 'bip39'
import * as bitcoin from 'bitcoinjs-lib'
import { answer, broadcastBitcoin } from './oracle.mjs'

bitcoin.initEccLib(ecc)
const network = bitcoin.networks.regtest

const kinds = {
  p2wpkh: (node) => ({ ...bitcoin.payments.p2wpkh({ pubkey: node.publicKey, network }), signer: node }),
  // BIP86: the key is tweaked by its own hash and commits to no script.
  p2tr: (node) => {
    const tapInternalKey = node.publicKey.subarray(1)
    const signer = node.tweak(bitcoin.crypto.taggedHash('TapTweak', tapInternalKey))
    return { ...bitcoin.payments.p2tr({ internalPubkey: tapInternalKey, network }), signer, tapInternalKey }
  },
}

await answer(async ({ rpc, mnemonic, path, kind, outputs, fee }) => {
  const account = BIP32Factory(ecc).fromSeed(bip39.mnemonicToSeedSync(mnemonic), network).derivePath(path)
  const coins = outputs.map((output) => {
    const own = kinds[kind](account.derive(0).derive(output.index))
    const { address } = bitcoin.payments[kind]({ output: own.output, network })
    if (address !== output.address) throw new Error(`${output.address} is ${address} by bitcoinjs-lib`)
    return { ...output, own }
  })
  const psbt = new bitcoin.Psbt({ network })
  for (const { txid, vout, sats, own } of coins) {
    const witnessUtxo = { script: own.output, value: BigInt(sats) }
    const key = own.tapInternalKey ? { tapInternalKey: own.tapInternalKey } : {}
    psbt.addInput({ hash: txid, index: vout, witnessUtxo, ...key })
  }
  const sum = coins.reduce((sum, { sats }) => sum + BigInt(sats), 0n)
  psbt.addOutput({ script: coins[0].own.output, value: sum - BigInt(fee) })
  coins.forEach(({ own }, index) => psbt.signInput(index, own.signer))
  psbt.finalizeAllInputs()
  return { txid: await broadcastBitcoin(rpc, psbt.extractTransaction()) }
})
