// The step: finds the job's token, exchanges it, hides what came of it, and hands it to the later steps.

import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { base, exchange, judge, revoke } from './lib/broker.js'
import { expiry, secrets, variables } from './lib/credential.js'
import { make } from './lib/folder.js'
import { Waiting } from './lib/http.js'
import { idToken, words } from './lib/platform.js'
import { Failure, clean, error, exportVariables, input, keep, mask, needed, say, setOutputs } from './lib/runner.js'

const UNITS = { s: 1, m: 60, h: 3600, d: 86_400 }

const seconds = (name, text) => {
  const [, count, unit] = /^(\d{1,7})([smhd])$/u.exec(text) ?? []
  if (!unit || count === '0') {
    throw new Failure(`input \`${name}\`: found \`${clean(text, 60)}\`, expected a duration such as \`90s\` or \`10m\``)
  }
  return Number(count) * UNITS[unit]
}

const oneOf = (name, allowed) => {
  const value = input(name) || allowed[0]
  if (!allowed.includes(value)) {
    const words = allowed.map((one) => `\`${one}\``).join(', ')
    throw new Failure(`input \`${name}\`: found \`${clean(value, 60)}\`, expected one of ${words}`)
  }
  return value
}

/** All that is asked for, read before any token is asked for, let alone spent. */
const settings = () => {
  const broker = base(needed('broker'))
  const name = input('name') || 'CAMBIO_TOKEN'
  // The runner drops what is set under its own names, and `NODE_OPTIONS`.
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/u.test(name) || /^(GITHUB_|RUNNER_|ACTIONS_|NODE_OPTIONS$)/iu.test(name)) {
    throw new Failure(`input \`name\`: \`${clean(name, 60)}\` is no name of a variable that a step can set`)
  }
  const file = input('ca-file')
  const path = resolve(process.env.GITHUB_WORKSPACE ?? '.', file)
  if (file && !existsSync(path)) {
    throw new Failure(`input \`ca-file\`: there is no \`${clean(file)}\``, 'does `actions/checkout` come before this step?')
  }
  const lifetime = input('lifetime')
  return {
    broker,
    name,
    audience: needed('audience'),
    scope: input('scope'),
    lifetime: lifetime && String(seconds('lifetime', lifetime)),
    export: oneOf('export', ['env', 'outputs', 'file', 'none']),
    revokes: oneOf('revoke', ['true', 'false']) === 'true',
    tokenAudience: input('token-audience') || broker,
    authority: file ? readFileSync(path, 'utf8') : '',
    patience: seconds('deadline', input('deadline') || '60s') * 1000,
  }
}

/** A file in a folder of its own, both for this user alone. The post step takes them away. */
const write = (text, nonce) => {
  const path = join(make(nonce), 'credential')
  writeFileSync(path, text, { mode: 0o600, flag: 'wx' })
  return path
}

const handOut = (asked, answer, expiresAt, nonce) => {
  if (asked.export === 'none') return
  if (asked.export === 'file') {
    const path = write(answer.access_token, nonce)
    exportVariables([['CAMBIO_CREDENTIAL_FILE', path]])
    setOutputs([['file', path]])
    return
  }
  const values = variables(answer, asked.name, expiresAt)
  if (values === null) throw new Failure('a credential of this kind has no variables', 'take `export: file`')
  if (asked.export === 'env') exportVariables(values)
  else setOutputs(values)
  say(`${asked.export === 'env' ? 'the later steps have' : 'this step has the outputs'} ${values.map(([name]) => name).join(', ')}`)
}

/**
 * A job that is cancelled sends SIGINT, and kills ten seconds later. An exchange that is under way then is waited for, so that what
 * it brings can be ended: nobody else would know of it.
 */
const cancelled = { by: '', exchanging: false }
const heed = (waiting) => {
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.on(signal, () => {
      cancelled.by = signal
      waiting.stop()
      if (!cancelled.exchanging) process.exit(1)
    })
  }
}

/** What the post step reads. */
const KEPT = ['broker', 'exchange_id', 'lease_id', 'expires_at', 'lease_token', 'kept', 'authority']

const run = async () => {
  // All of them, first of all: the post step sees what is said here, and else what an earlier step said in its stead (`STATE_…`).
  const nonce = randomBytes(16).toString('hex')
  keep([['nonce', nonce], ...KEPT.map((name) => [name, ''])])
  const asked = settings()
  const waiting = new Waiting(asked.patience)
  heed(waiting)
  const token = await idToken(asked.tokenAudience, asked.authority, waiting)
  const form = { subject_token: token, audience: asked.audience }
  if (asked.scope) form.scope = asked.scope
  if (asked.lifetime) form.requested_lifetime = asked.lifetime
  const askedAt = Date.now()
  let answer
  cancelled.exchanging = true
  try {
    answer = await exchange(asked.broker, form, asked.authority, waiting)
  } catch (failure) {
    if (failure.refused) say(words(token))
    throw failure
  }
  const text = (value) => (typeof value === 'string' ? value : '')
  const told = (value) => clean(text(value), 200)
  const lease = { id: told(answer.lease?.id), token: text(answer.lease?.token) }
  const id = told(answer.exchange_id)
  let expiresAt = ''
  try {
    // Hidden, then kept, before anything that can fail: from here on the post step ends it, whatever happens to the job.
    ;[lease.token, text(answer.access_token)].forEach(mask)
    keep([
      ['broker', asked.broker], ['exchange_id', id], ['lease_id', lease.id],
      ['lease_token', asked.revokes ? lease.token : ''], ['kept', String(!asked.revokes)],
      ['authority', Buffer.from(asked.authority).toString('base64')],
    ])
    // Nothing else is done with the answer before the runner knows all that is to be hidden.
    secrets(answer).forEach(mask)
    expiresAt = expiry(answer, askedAt)
    keep([['expires_at', expiresAt]])
    judge(asked.broker, answer)
    if (cancelled.by) throw new Failure(`cancelled by ${cancelled.by} while the broker was answering`)
    handOut(asked, answer, expiresAt, nonce)
    setOutputs([['exchange-id', id], ['lease-id', lease.id], ['expires-at', expiresAt], ['scope', told(answer.scope)]])
  } catch (failure) {
    // Nobody can use it any more, so it ends now, even where it was to outlive the job; else the post step tries again.
    if (lease.token) {
      await revoke(asked.broker, lease.token, asked.authority, new Waiting(5_000)).catch(() => keep([['lease_token', lease.token]]))
    }
    const reason = failure instanceof Failure ? failure.message : `unforeseen: ${clean(failure?.code ?? failure?.name)}`
    throw new Failure(`${reason}${id ? ` (exchange \`${id}\`)` : ''}`, failure.hint)
  }
  const parts = [expiresAt && `until ${expiresAt}`, `exchange \`${id}\``, lease.id && `lease \`${lease.id}\``].filter(Boolean)
  say(`issued \`${clean(asked.audience, 100)}\`${answer.scope ? ` for \`${told(answer.scope)}\`` : ''} ${parts.join(', ')}`)
}

try {
  await run()
} catch (failure) {
  const known = failure instanceof Failure
  // A failure that nobody foresaw is told by its name alone: its text may quote what it failed on.
  const text = known ? failure.message : `unforeseen: ${clean(failure?.code ?? failure?.name)}`
  error('Cambio', failure.hint ? `${text}: ${failure.hint}` : text)
  process.exitCode = 1
}
