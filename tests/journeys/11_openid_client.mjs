// npm openid-client (genericGrantRequest) completes an exchange against `cambio dev`; npm jose verifies by discovery.
import { execSync, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const require = createRequire(process.env.NODE_PATH + '/')
const load = (name) => import(pathToFileURL(require.resolve(name)).href)
const client = await load('openid-client')
const jose = await load('jose')

let passed = 0
let failed = 0
const check = (sentence, holds, found = '') => {
  holds ? passed++ : failed++
  console.log(holds ? `ok      ${sentence}` : `FAILED  ${sentence} ${JSON.stringify(found)}`)
}

const dev = spawn(process.env.CAMBIO_BIN ?? 'target/release/cambio', ['dev', '--json'], { stdio: ['ignore', 'pipe', 'ignore'] })
writeFileSync(`${process.env.CAMBIO_TEST_WORK ?? '/tmp'}/dev-node.pid`, String(dev.pid))
try {
  const [line] = await once(createInterface({ input: dev.stdout }), 'line')
  const told = JSON.parse(line)
  const [visit] = told.visits
  // The lines that `dev` prints for people: what fetches a fresh token is all before the exchange itself.
  const fresh = visit.again.replaceAll('\\\n', ' ').split('| curl')[0]
  const subject = execSync(fresh, { encoding: 'utf8' }).trim().replace('subject_token=', '')
  const config = await client.discovery(new URL(told.broker.replace(/\/$/, '')), 'journey', undefined, client.None(), {
    execute: [client.allowInsecureRequests],
  })
  const ask = (token) =>
    client.genericGrantRequest(config, 'urn:ietf:params:oauth:grant-type:token-exchange', {
      subject_token: token,
      subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
      audience: 'jwt/orders',
    })
  const issued = await ask(subject)
  check('openid-client exchanges a GitHub token', issued.access_token && issued.expires_in > 0, issued)
  check('the answer says what was issued', issued.issued_token_type === 'urn:ietf:params:oauth:token-type:access_token', issued)
  const server = config.serverMetadata()
  const { payload, protectedHeader } = await jose.jwtVerify(
    issued.access_token,
    jose.createRemoteJWKSet(new URL(server.jwks_uri)),
    { issuer: server.issuer, audience: visit.outcome.issued.aud, typ: 'at+jwt', algorithms: ['ES256'] },
  )
  check(`jose verifies it by discovery, signed by ${protectedHeader.kid}`, payload.sub.startsWith('github:'), payload)
  try {
    await ask(subject)
    check('the same GitHub token is refused a second time', false)
  } catch (error) {
    check('the same GitHub token is refused a second time', error.error === 'invalid_request', error)
  }
} finally {
  dev.kill('SIGTERM')
  await once(dev, 'exit')
}
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed || !passed ? 1 : 0)
