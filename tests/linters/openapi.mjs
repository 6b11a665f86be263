// Judges an OpenAPI document with a validator of the specification, Redocly's recommended and Spectral's OpenAPI rules.
// Input: the document. Output: one sentence for each finding, also for warnings.

import { createConfig, lintFromString } from '@redocly/openapi-core'
import { Validator } from '@seriousme/openapi-schema-validator'
import spectralCore from '@stoplight/spectral-core'
import spectralRulesets from '@stoplight/spectral-rulesets'

import { answer } from './oracle.mjs'

async function validateSchema(document) {
  const result = await new Validator().validate(structuredClone(document))
  return result.valid ? [] : [`specification: ${JSON.stringify(result.errors)}`]
}

async function lintWithRedocly(document) {
  const config = await createConfig({ extends: ['recommended'] })
  const problems = await lintFromString({ source: JSON.stringify(document), absoluteRef: 'openapi.json', config })
  return problems.map((found) => `redocly ${found.ruleId} at ${found.location[0]?.pointer}: ${found.message}`)
}

async function lintWithSpectral(document) {
  const spectral = new spectralCore.Spectral()
  spectral.setRuleset({ extends: [spectralRulesets.oas] })
  const problems = await spectral.run(document)
  return problems.map((found) => `spectral ${found.code} at ${found.path.join('/')}: ${found.message}`)
}

await answer(async (document) => [
  ...(await validateSchema(document)),
  ...(await lintWithRedocly(document)),
  ...(await lintWithSpectral(document)),
])
