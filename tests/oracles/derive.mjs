// Derives as a wallet does, through ethers and bitcoinjs-lib:
// { mnemonic, passphrase?, account?, count?, network? } ->
// { evm: { path, xpub, addresses }, btc: { path, xpub, addresses, scripts }, taproot: { path, xpub, addresses, scripts }, uris }.
// `network` is "bitcoin" (the default), "testnet" or "regtest"; `xpub` of Bitcoin has the version bytes of that network;
// `addresses` are those of the receiving chain 0/i: of BIP-84 (pay-to-witness-public-key-hash) for btc, of BIP-86 below its own
// purpose for taproot. `uris` ask for each of `sats` at the first address of both, as the package bip21 writes it.
import * as ecc from '@bitcoinerlab/secp256k1'
import * as bip21 from 'bip21'
import { BIP32Factory } from 'bip32'
import * as bip39 from 'bip39'
import * as bitcoin from 'bitcoinjs-lib'
import { HDNodeWallet } from 'ethers'
import { answer } from './oracle.mjs'

bitcoin.initEccLib(ecc)

function evm({ mnemonic, passphrase, account, count }) {
  const path = `m/44'/60'/${account}'`
  const node = HDNodeWallet.fromPhrase(mnemonic, passphrase, path).neuter()
  const addresses = Array.from({ length: count }, (_, index) => node.deriveChild(0).deriveChild(index).address)
  return { path, xpub: node.extendedKey, addresses }
}

function btc(purpose, pay, { mnemonic, passphrase, account, count, network }) {
  const parameters = bitcoin.networks[network]
  if (!parameters) throw new Error(`network is bitcoin, testnet or regtest, not ${network}`)
  const path = `m/${purpose}'/${network === 'bitcoin' ? 0 : 1}'/${account}'`
  const seed = bip39.mnemonicToSeedSync(mnemonic, passphrase)
  const node = BIP32Factory(ecc).fromSeed(seed, parameters).derivePath(path).neutered()
  const keys = Array.from({ length: count }, (_, index) => node.derive(0).derive(index).publicKey)
  const payments = keys.map((pubkey) => pay(pubkey, parameters))
  return {
    path,
    xpub: node.toBase58(),
    addresses: payments.map(({ address }) => address),
    scripts: payments.map(({ output }) => Buffer.from(output).toString('hex')),
  }
}

await answer(({ mnemonic, passphrase = '', account = 0, count = 3, network = 'bitcoin', sats = [] }) => {
  if (!bip39.validateMnemonic(mnemonic)) throw new Error('the mnemonic has a wrong word or checksum')
  const input = { mnemonic, passphrase, account, count, network }
  const segwit = btc(84, (pubkey, network) => bitcoin.payments.p2wpkh({ pubkey, network }), input)
  const taproot = btc(86, (pubkey, network) => bitcoin.payments.p2tr({ internalPubkey: pubkey.subarray(1), network }), input)
  const uris = [segwit, taproot].flatMap(({ addresses }) =>
    sats.map((amount) => bip21.encode(addresses[0], { amount: amount / 1e8 })),
  )
  return { evm: evm(input), btc: segwit, taproot, uris }
})
