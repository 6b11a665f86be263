// Reads transfers of a TRC20 as any EVM client would, through a node's JSON-RPC: { node, token, recipients } ->
// { logs: [{ txid, to, value }], refused: { name: code } }. Addresses are the 20 bytes of the virtual machine, `0x` first;
// `refused` are questions that java-tron does not answer, with the code of its refusal.
import { createPublicClient, http, pad, parseAbiItem } from 'viem'
import { answer } from './oracle.mjs'

const TRANSFER = parseAbiItem('event Transfer(address indexed from, address indexed to, uint256 value)')
const TOPIC = '0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef'

await answer(async ({ node, token, recipients }) => {
  const client = createPublicClient({ transport: http(`${node}/jsonrpc`, { retryCount: 0 }) })
  const finalized = await client.getBlock({ blockTag: 'finalized' })
  const head = await client.getBlock()
  if (head.number < finalized.number || head.timestamp < finalized.timestamp) throw new Error('the head is behind')
  const found = await client.getLogs({
    address: token,
    event: TRANSFER,
    args: { to: recipients },
    fromBlock: head.number > 5000n ? head.number - 5000n : 0n,
    toBlock: 'finalized',
  })
  for (const log of found) {
    const receipt = await client.request({ method: 'eth_getTransactionReceipt', params: [log.transactionHash] })
    const same = receipt.logs.find(({ logIndex }) => BigInt(logIndex) === BigInt(log.logIndex))
    if (same?.data !== log.data) throw new Error(`the receipt of ${log.transactionHash} has another log`)
  }
  const code = async (method, ...params) => {
    try {
      await client.request({ method, params })
      return 'answered'
    } catch (error) {
      return error.walk?.((cause) => typeof cause.code === 'number')?.code ?? error.code
    }
  }
  const words = recipients.map((of) => pad(of))
  // A node that is behind says nothing, and no error, of blocks that it does not have.
  const ahead = await client.getLogs({ address: token, fromBlock: head.number + 100n, toBlock: head.number + 200n })
  if (ahead.length !== 0) throw new Error('blocks to come have logs')
  return {
    logs: found.map(({ transactionHash, args: { to, value } }) => ({ txid: transactionHash.slice(2), to, value: `${value}` })),
    refused: {
      order: await code('eth_getLogs', { fromBlock: '0x2', toBlock: '0x1' }),
      topics: await code('eth_getLogs', { topics: [TOPIC, null, words, null, null] }),
      hash: await code('eth_getLogs', { blockHash: `0x${'12'.repeat(32)}` }),
      tag: await code('eth_getBlockByNumber', 'safe', false),
      send: await code('eth_sendRawTransaction', '0x00'),
    },
  }
})
