// Pays as a wallet on TronWeb does: { node, secret, to, amount, token? } -> { txid, from }.
// `amount` is in base units, as a decimal string; `token` is the contract of a TRC20, absent for TRX; `secret` is the
// payer's private key in hex.
import { TronWeb } from 'tronweb'
import { answer } from './oracle.mjs'

const FEE_LIMIT = 100_000_000

await answer(async ({ node, secret, to, amount, token }) => {
  const wallet = new TronWeb({ fullHost: node, privateKey: secret })
  const from = wallet.defaultAddress.base58
  if (!token) {
    const sent = await wallet.trx.sendTransaction(to, Number(amount))
    if (!sent.result) throw new Error(JSON.stringify(sent))
    return { txid: sent.txid, from }
  }
  const contract = await wallet.contract().at(token)
  const held = await contract.balanceOf(from).call()
  if (BigInt(held) < BigInt(amount)) throw new Error(`${from} has only ${held} of the token`)
  return { txid: await contract.transfer(to, amount).send({ feeLimit: FEE_LIMIT }), from }
})
