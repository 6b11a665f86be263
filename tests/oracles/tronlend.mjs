// Lends energy and takes it back as a wallet on TronWeb does: { node, secret, to, lend?, back? } -> { txid }.
// `lend` and `back` are staked sun, as numbers; exactly one of them is there.
import { TronWeb } from 'tronweb'
import { answer } from './oracle.mjs'

await answer(async ({ node, secret, to, lend, back }) => {
  const wallet = new TronWeb({ fullHost: node, privateKey: secret })
  const from = wallet.defaultAddress.base58
  const { transactionBuilder: build, trx } = wallet
  const unsigned = lend
    ? await build.delegateResource(lend, to, 'ENERGY', from)
    : await build.undelegateResource(back, to, 'ENERGY', from)
  const sent = await trx.sendRawTransaction(await trx.sign(unsigned))
  if (!sent.result) throw new Error(JSON.stringify(sent))
  return { txid: sent.txid }
})
