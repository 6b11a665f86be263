// Pays as a buyer's wallet does, from one of anvil's own accounts, through ethers or viem:
// { rpc, to, amount, token?, from?, library? } -> { txid, from }.
// `amount` is in base units, as a decimal string; `token` is the contract of an ERC-20, absent for the coin of the chain;
// `from` is the number of the account, 0 if absent; `library` is "ethers", the default, or "viem".
import { Contract, HDNodeWallet, JsonRpcProvider } from 'ethers'
import { createWalletClient, defineChain, http, parseAbi } from 'viem'
import { mnemonicToAccount } from 'viem/accounts'
import { answer } from './oracle.mjs'

const MNEMONIC = 'test test test test test test test test test test test junk'
const TRANSFER = 'function transfer(address to, uint256 value)'

const libraries = {
  async ethers({ rpc, to, amount, token, from }) {
    // Small batches would wait for a timer; a test wants each call at once.
    const provider = new JsonRpcProvider(rpc, undefined, { staticNetwork: true, batchMaxCount: 1 })
    const wallet = HDNodeWallet.fromPhrase(MNEMONIC, '', `m/44'/60'/0'/0/${from}`).connect(provider)
    const sent = token
      ? await new Contract(token, [TRANSFER], wallet).transfer(to, amount)
      : await wallet.sendTransaction({ to, value: amount })
    return { txid: sent.hash, from: wallet.address }
  },

  async viem({ rpc, to, amount, token, from }) {
    const account = mnemonicToAccount(MNEMONIC, { addressIndex: from })
    const transport = http(rpc)
    const id = Number(await transport({}).request({ method: 'eth_chainId' }))
    const chain = defineChain({
      id,
      name: 'anvil',
      nativeCurrency: { name: 'Ether', symbol: 'ETH', decimals: 18 },
      rpcUrls: { default: { http: [rpc] } },
    })
    const wallet = createWalletClient({ account, chain, transport })
    const value = BigInt(amount)
    const txid = token
      ? await wallet.writeContract({ address: token, abi: parseAbi([TRANSFER]), functionName: 'transfer', args: [to, value] })
      : await wallet.sendTransaction({ to, value })
    return { txid, from: account.address }
  },
}

await answer(async ({ from = 0, library = 'ethers', ...payment }) => {
  const pay = libraries[library]
  if (!pay) throw new Error(`library is ethers or viem, not ${library}`)
  return await pay({ from, ...payment })
})
