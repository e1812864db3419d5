// What a broker's answer carries, as the variables that `cambio exchange --format env` sets (docs/client.md), and what of it is
// secret.

import { Failure } from './runner.js'

const STRUCTURED = 'urn:cambio:token-type:'

const LOGINS = new Map([
  ['postgres', ['PGHOST', 'PGPORT', 'PGDATABASE', 'PGUSER', 'PGPASSWORD']],
  ['mysql', ['MYSQL_HOST', 'MYSQL_TCP_PORT', 'MYSQL_DATABASE', 'MYSQL_USER', 'MYSQL_PWD']],
])
const ANY = ['CAMBIO_HOST', 'CAMBIO_PORT', 'CAMBIO_DATABASE', 'CAMBIO_USER', 'CAMBIO_PASSWORD']

const isStructured = (answer) => typeof answer.issued_token_type === 'string' && answer.issued_token_type.startsWith(STRUCTURED)

/**
 * Every secret inside a structured credential, itself included. This is masked before the answer is looked at further, so it takes
 * whatever a stranger may answer. A list of what is still to be seen, and no recursion: 256 KB of `[` are deeper than the stack.
 * @returns {string[]}
 */
export const secrets = (answer) => {
  const found = typeof answer.access_token === 'string' ? [answer.access_token] : []
  if (!isStructured(answer)) return found
  const open = [['', parsed(answer)]]
  while (open.length > 0) {
    const [name, value] = open.pop()
    if (value !== null && typeof value === 'object') {
      for (const [key, inner] of Object.entries(value)) open.push([Array.isArray(value) ? name : key, inner])
    } else if (typeof value === 'string' && SECRET.test(name) && !PUBLIC.test(name)) found.push(value)
  }
  return found
}

/** Members that hold a secret, in every kind of credential, known or to come. */
const SECRET = /password|secret|token|key|uri|url|pem|passphrase/iu
/** They only name the key. */
const PUBLIC = /^(access_key_id|key_id|kid)$/u

const parsed = (answer) => {
  try {
    return JSON.parse(answer.access_token)
  } catch {
    return null
  }
}

/**
 * The variables of a credential, in order.
 * @param {string} name the variable for a token, which has none of its own
 * @returns {[string, string][] | null} null: a credential of a kind that has no variables
 */
export const variables = (answer, name, expiresAt) => {
  const type = answer.issued_token_type
  if (!type.startsWith(STRUCTURED)) return [[name, answer.access_token]]
  const members = parsed(answer)
  if (members === null || typeof members !== 'object') throw new Failure('the credential is no JSON object', 'is this action older than the broker?')
  const all = []
  const add = (variable, member, required) => {
    const value = members[member]
    if (typeof value === 'string' && value !== '') all.push([variable, value])
    else if (Number.isInteger(value)) all.push([variable, String(value)])
    else if (required) throw new Failure(`the credential lacks a text \`${member}\``, 'is this action older than the broker?')
  }
  if (type === `${STRUCTURED}aws`) {
    add('AWS_ACCESS_KEY_ID', 'access_key_id', true)
    add('AWS_SECRET_ACCESS_KEY', 'secret_access_key', true)
    add('AWS_SESSION_TOKEN', 'session_token', true)
    add('AWS_REGION', 'region')
    add('AWS_DEFAULT_REGION', 'region')
    if (expiresAt) all.push(['AWS_CREDENTIAL_EXPIRATION', expiresAt])
    return all
  }
  if (type !== `${STRUCTURED}database`) return null
  const [host, port, database, user, password] = LOGINS.get(members.kind) ?? ANY
  add(host, 'host')
  add(port, 'port')
  add(database, 'database')
  add(user, 'user', true)
  add(password, 'password', true)
  // Without it `psql` would fall back to `prefer`, and believe any server.
  if (members.kind === 'postgres') add('PGSSLMODE', 'sslmode')
  add(members.kind === 'redis' ? 'REDIS_URL' : 'DATABASE_URL', 'uri')
  return all
}

/** The end of the last year that RFC 3339 can write, in milliseconds. */
const LAST = 253_402_300_799_999

/**
 * When the credential ends, at the latest: its own word, else counted from before the request. Whole seconds; empty where what the
 * answer says is no such time. It never throws: a lease is to be ended, whatever else the answer holds.
 */
export const expiry = (answer, askedAt) => {
  const own = isStructured(answer) ? parsed(answer)?.expires_at : undefined
  const counted = typeof answer.expires_in === 'number' ? askedAt + answer.expires_in * 1000 : Number.NaN
  const ends = own === undefined ? counted : typeof own === 'string' ? Date.parse(own) : Number.NaN
  return ends >= 0 && ends <= LAST ? `${new Date(Math.floor(ends / 1000) * 1000).toISOString().slice(0, 19)}Z` : ''
}
