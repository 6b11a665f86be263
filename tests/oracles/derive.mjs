// Derives as a wallet does, through ethers and bitcoinjs-lib:
// { mnemonic, passphrase?, account?, count?, network? } ->
// { evm: { path, xpub, addresses }, btc: { path, xpub, addresses, scripts, taproot, uris } }.
// `network` is "bitcoin" (the default), "testnet" or "regtest"; `xpub` of btc has the version bytes of that network;
// `addresses` are those of the receiving chain 0/i, BIP-84 pay-to-witness-public-key-hash for btc;
// `taproot` are the addresses of the same keys as BIP-86 makes them; `uris` ask for each of `sats` at the first address of both
// kinds, as the package bip21 writes it.
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

function btc({ mnemonic, passphrase, account, count, network, sats }) {
  const parameters = bitcoin.networks[network]
  if (!parameters) throw new Error(`network is bitcoin, testnet or regtest, not ${network}`)
  const path = `m/84'/${network === 'bitcoin' ? 0 : 1}'/${account}'`
  const seed = bip39.mnemonicToSeedSync(mnemonic, passphrase)
  const node = BIP32Factory(ecc).fromSeed(seed, parameters).derivePath(path).neutered()
  const keys = Array.from({ length: count }, (_, index) => node.derive(0).derive(index).publicKey)
  const payments = keys.map((pubkey) => bitcoin.payments.p2wpkh({ pubkey, network: parameters }))
  const taproot = keys.map(
    (pubkey) => bitcoin.payments.p2tr({ internalPubkey: pubkey.subarray(1), network: parameters }).address,
  )
  return {
    path,
    xpub: node.toBase58(),
    addresses: payments.map(({ address }) => address),
    scripts: payments.map(({ output }) => Buffer.from(output).toString('hex')),
    taproot,
    uris: [payments[0].address, taproot[0]].flatMap((address) =>
      sats.map((amount) => bip21.encode(address, { amount: amount / 1e8 })),
    ),
  }
}

await answer(({ mnemonic, passphrase = '', account = 0, count = 3, network = 'bitcoin', sats = [] }) => {
  if (!bip39.validateMnemonic(mnemonic)) throw new Error('the mnemonic has a wrong word or checksum')
  const input = { mnemonic, passphrase, account, count, network, sats }
  return { evm: evm(input), btc: btc(input) }
})
