// The AWS SDK for JavaScript gets its session through the front and uses it against moto, with four variables alone.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { Agent } from 'node:https'
import { createRequire } from 'node:module'
import { fileURLToPath, pathToFileURL } from 'node:url'

const require = createRequire(process.env.NODE_PATH + '/')
const load = async (name) => import(pathToFileURL(require.resolve(name)).href)
const { fromTokenFile } = await load('@aws-sdk/credential-providers')
const { STSClient, GetCallerIdentityCommand } = await load('@aws-sdk/client-sts')

let passed = 0
let failed = 0
const check = (sentence, holds, found = '') => {
  holds ? passed++ : failed++
  console.log(holds ? `ok      ${sentence}` : `FAILED  ${sentence} ${found?.stack ?? JSON.stringify(found)}`)
}

const python = process.env.CAMBIO_PYTHON ?? `${process.env.CAMBIO_TEST_WORK}/venv/bin/python`
const journey = fileURLToPath(new URL('40_aws.py', import.meta.url))
const stage = spawn(python, [journey, '--stage'], { stdio: ['pipe', 'pipe', 'inherit'] })
try {
  const [line] = await Promise.race([
    once(createInterface({ input: stage.stdout }), 'line'),
    once(stage, 'exit').then(([code]) => Promise.reject(new Error(`the stage ended with ${code}`))),
  ])
  const told = JSON.parse(line)
  const surround = (surroundings) => {
    for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name]
    for (const [name, value] of Object.entries(surroundings)) if (name.startsWith('AWS_')) process.env[name] = value
  }
  surround(told.good)
  const credentials = await fromTokenFile()()
  check('fromTokenFile gets a session', credentials.accessKeyId.startsWith('ASIA'), credentials)
  check('that knows its end', credentials.expiration > new Date(), credentials.expiration)
  check('and its account', credentials.accountId === '123456789012', credentials.accountId)
  const aws = new STSClient({
    credentials, endpoint: told.aws, region: 'eu-central-1',
    requestHandler: { httpsAgent: new Agent({ ca: readFileSync(told.ca) }) },
  })
  const { Arn } = await aws.send(new GetCallerIdentityCommand({}))
  check('and is good at AWS', Arn.includes(':assumed-role/worker/shop-worker-site-worker-'), Arn)
  for (const [who, name] of [['stranger', 'AccessDenied'], ['expired', 'ExpiredTokenException']]) {
    surround(told[who])
    try {
      await fromTokenFile()()
      check(`${who}: ${name}`, false)
    } catch (error) {
      check(`${who}: ${name}`, error.name === name, error)
    }
  }
} catch (error) {
  check('the journey came to its end', false, error)
} finally {
  stage.stdin.end()
  if (stage.exitCode === null) await once(stage, 'exit')
}
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed || !passed ? 1 : 0)
