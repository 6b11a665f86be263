// Compiles Solidity: { sources: { "Name.sol": text } } -> { Name: { name, abi, bytecode } }.
import solc from 'solc'
import { answer } from './oracle.mjs'

await answer(({ sources }) => {
  const input = {
    language: 'Solidity',
    sources: Object.fromEntries(Object.entries(sources).map(([name, content]) => [name, { content }])),
    settings: {
      // The oldest rules that every chain under test still follows.
      evmVersion: 'paris',
      optimizer: { enabled: true, runs: 200 },
      outputSelection: { '*': { '*': ['abi', 'evm.bytecode.object'] } },
    },
  }
  const output = JSON.parse(solc.compile(JSON.stringify(input)))
  const errors = (output.errors ?? []).filter(({ severity }) => severity === 'error')
  if (errors.length > 0) throw new Error(errors.map(({ formattedMessage }) => formattedMessage).join('\n'))
  const compiled = {}
  for (const contracts of Object.values(output.contracts)) {
    for (const [name, { abi, evm }] of Object.entries(contracts)) {
      compiled[name] = { name, abi, bytecode: `0x${evm.bytecode.object}` }
    }
  }
  return compiled
})
