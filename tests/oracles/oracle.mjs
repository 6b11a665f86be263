// The frame of every oracle: JSON on standard input, JSON on standard output, a sentence and a status when it fails.

/** Longer than any oracle needs on a busy machine; a test then gets a sentence instead of waiting for ever. */
const LIMIT_MS = 120_000

export async function answer(work) {
  setTimeout(() => {
    console.error(`no answer within ${LIMIT_MS / 1000} s`)
    process.exit(1)
  }, LIMIT_MS).unref()
  let text = ''
  for await (const chunk of process.stdin) text += chunk
  try {
    const output = await work(JSON.parse(text))
    process.stdout.write(JSON.stringify(output), () => process.exit(0))
  } catch (error) {
    console.error(error)
    process.exit(1)
  }
}

/** Hands a transaction of bitcoinjs-lib to a node of Bitcoin and returns the name that both give it. */
export async function broadcastBitcoin(rpc, tx) {
  const url = new URL(rpc)
  const authorization = `Basic ${Buffer.from(`${url.username}:${url.password}`).toString('base64')}`
  url.username = url.password = ''
  const response = await fetch(url, {
    method: 'POST',
    headers: { authorization, 'content-type': 'application/json' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'sendrawtransaction', params: [tx.toHex()] }),
  })
  const { result, error } = await response.json()
  if (error) throw new Error(`the node refused the payment: ${JSON.stringify(error)}`)
  if (result !== tx.getId()) throw new Error(`the node names it ${result}, bitcoinjs-lib ${tx.getId()}`)
  return result
}
