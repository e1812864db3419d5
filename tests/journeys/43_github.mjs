// Octokit works with a token that Cambio narrowed; @octokit/auth-app, the real client of the same App, passes the same stand-in.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { once } from 'node:events'
import { existsSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const require = createRequire(process.env.NODE_PATH + '/')
// Both are modules alone: found by their folder.
const load = async (name) => {
  const manifest = `${process.env.NODE_PATH}/${name}/package.json`
  const { exports } = require(manifest)
  const entry = exports['.'].import ?? exports['.'].default
  return import(pathToFileURL(`${process.env.NODE_PATH}/${name}/${entry}`).href)
}
const { Octokit } = await load('@octokit/core')
const { createAppAuth } = await load('@octokit/auth-app')

let passed = 0
let failed = 0
const check = (sentence, holds, found = '') => {
  holds ? passed++ : failed++
  console.log(holds ? `ok      ${sentence}` : `FAILED  ${sentence} ${JSON.stringify(found)}`)
}

const work = process.env.CAMBIO_TEST_WORK ?? '/tmp'
const python = existsSync(`${work}/venv/bin/python`) ? `${work}/venv/bin/python` : process.env.PYTHON ?? 'python3'
const stage = spawn(python, ['tests/journeys/standins/stage.py'], { stdio: ['pipe', 'pipe', 'inherit'] })
writeFileSync(`${work}/stage-node.pid`, String(stage.pid))
try {
  const [line] = await once(createInterface({ input: stage.stdout }), 'line')
  const told = JSON.parse(line)
  const exchange = async (token, scope) => {
    const form = new URLSearchParams({
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
      subject_token: token,
      audience: 'github/acme',
      scope,
    })
    const answer = await fetch(`${told.broker}/token`, { method: 'POST', body: form })
    return [answer.status, await answer.json()]
  }
  const status = async (call) => {
    try {
      return (await call()).status
    } catch (error) {
      return error.status ?? String(error)
    }
  }

  const [code, issued] = await exchange(told.tokens[0], 'release')
  check('a job gets an installation token of the long form', code === 200 && issued.access_token.startsWith('ghs_4711_'), issued)
  check('that ends with its lease', issued.expires_in > 890 && issued.expires_in <= 900, issued)
  const octokit = new Octokit({ auth: issued.access_token, baseUrl: told.api })
  const read = await octokit.request('GET /repos/{owner}/{repo}', { owner: 'acme', repo: 'site' })
  check('Octokit reads the repository of its role', read.data.full_name === 'acme/site', read.data)
  check('with the permissions of its role', JSON.stringify(read.data.permissions) === '{"contents":"write","metadata":"read"}', read.data)
  const other = await status(() => octokit.request('GET /repos/acme/docs'))
  check('and no other repository', other === 404, other)

  const [, narrow] = await exchange(told.tokens[1], 'docs')
  const reader = new Octokit({ auth: narrow.access_token, baseUrl: told.api })
  const write = await status(() => reader.request('PUT /repos/acme/docs/contents/a'))
  check('a role that may read may not write', write === 403, write)

  // What the App's own client sends passes the same checks as what we send.
  const auth = createAppAuth({ appId: told.app, privateKey: told.pem, request: new Octokit({ baseUrl: told.api }).request })
  const own = await auth({ type: 'installation', installationId: told.installation, repositoryIds: [777] })
  check('the real client of the App passes the same stand-in', own.token.startsWith('ghs_'), own)

  // Its holder ends it.
  const ended = await fetch(`${told.broker}/revoke`, { method: 'POST', body: new URLSearchParams({ token: issued.lease.token }) })
  check('its holder ends it', ended.status === 200, await ended.text())
  const dead = await status(() => octokit.request('GET /repos/acme/site'))
  check('and GitHub no longer knows it', dead === 401, dead)

  // And the lease of five seconds ends by itself.
  let gone = 200
  for (let tries = 0; tries < 60 && gone !== 401; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 200))
    gone = await status(() => reader.request('GET /repos/acme/docs'))
  }
  check('a lease that is over ends its token, hours before GitHub would', gone === 401, gone)
} finally {
  stage.stdin.end()
  await once(stage, 'exit')
}
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed || !passed ? 1 : 0)
