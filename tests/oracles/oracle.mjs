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
