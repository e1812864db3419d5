// One HTTP request and its answer: verified TLS or loopback, no redirects, no proxy, an end to every wait and every body.

import http from 'node:http'
import https from 'node:https'
import { isIP } from 'node:net'
import { rootCertificates } from 'node:tls'
import { Failure, clean } from './runner.js'

const MOST_BYTES = 256 * 1024
const LONGEST_WAIT = 30_000
const LONGEST_CONNECT = 5_000

/** No answer came. `sent`: whether the request may have arrived all the same. `tls`: nobody to trust was there. */
export class NoAnswer extends Error {
  constructor(message, { sent = false, tls = false } = {}) {
    super(message)
    this.sent = sent
    this.tls = tls
  }
}

const isLoopback = (host) => host === 'localhost' || host === '[::1]' || (isIP(host) === 4 && host.startsWith('127.'))

/** `text` as a URL that a token may be sent to: https, or http to this machine alone. */
export const safeUrl = (what, text) => {
  let url
  try {
    url = new URL(text)
  } catch {
    throw new Failure(`${what}: \`${clean(text, 200)}\` is no URL`)
  }
  if (url.username || url.password) throw new Failure(`${what} holds a user name or a password, expected none`)
  if (url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname))) return url
  throw new Failure(
    `${what}: found \`${clean(url.protocol)}//${clean(url.hostname)}\`, expected https (or http to this machine)`,
    'a token that is sent in the clear is anybody\'s',
  )
}

/**
 * Sends one request and reads its answer, whatever its status. `authority`: PEM to trust besides the roots of Node.js.
 * `left`: milliseconds until the deadline of the whole step.
 */
export const send = (url, { method = 'GET', headers = {}, body, authority, left = LONGEST_WAIT }) =>
  new Promise((resolve, reject) => {
    const secure = url.protocol === 'https:'
    const options = {
      method,
      headers: { accept: 'application/json', 'accept-encoding': 'identity', 'user-agent': 'cambio-action', ...headers },
      // A connection of its own: no pool, and no proxy that a variable names.
      agent: false,
    }
    if (secure) {
      options.minVersion = 'TLSv1.2'
      // Said here, so that a variable which an earlier step set (NODE_TLS_REJECT_UNAUTHORIZED) changes nothing.
      options.rejectUnauthorized = true
      // And so are the roots: the default ones take in NODE_EXTRA_CA_CERTS, with which an earlier step would be any broker.
      options.ca = authority ? [...rootCertificates, authority] : [...rootCertificates]
    }
    const request = (secure ? https : http).request(url, options)
    let connected = false
    let ready = false
    const fail = (message) => {
      clearTimeout(timer)
      clearTimeout(connecting)
      request.destroy()
      reject(new NoAnswer(message, { sent: ready, tls: connected && !ready }))
    }
    const wait = Math.max(1, Math.min(left, LONGEST_WAIT))
    const timer = setTimeout(() => fail(`no answer in ${Math.ceil(wait / 1000)} s`), wait)
    const connecting = setTimeout(() => ready || fail('no connection in 5 s'), Math.min(wait, LONGEST_CONNECT))
    request.on('socket', (socket) => {
      socket.once('connect', () => {
        connected = true
        if (!secure) ready = true
      })
      socket.once('secureConnect', () => { ready = true })
    })
    request.on('error', (error) => fail(clean(error.message || error.code, 200)))
    request.on('response', (response) => {
      const chunks = []
      let length = 0
      if (response.headers['content-encoding']) return fail('the answer has a content encoding, expected none')
      response.on('data', (chunk) => {
        length += chunk.length
        if (length > MOST_BYTES) return fail(`the answer has more than ${MOST_BYTES} bytes`)
        chunks.push(chunk)
      })
      response.on('error', (error) => fail(clean(error.message, 200)))
      response.on('aborted', () => fail('the answer was cut off'))
      response.on('end', () => {
        if (!response.complete) return
        clearTimeout(timer)
        clearTimeout(connecting)
        resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks).toString('utf8') })
      })
    })
    request.end(body)
  })

/** The JSON object that an answer holds, or null. */
export const object = (answer) => {
  try {
    const value = JSON.parse(answer.body)
    return value !== null && typeof value === 'object' && !Array.isArray(value) ? value : null
  } catch {
    return null
  }
}

/** Whole seconds of `Retry-After`, in milliseconds; null without it. */
export const retryAfter = (answer) => {
  const text = answer.headers['retry-after'] ?? ''
  return /^\d{1,6}$/u.test(text) ? Number(text) * 1000 : null
}

/** Patience as it runs out: waits double and are spread, so that a thousand jobs do not come back together. */
export class Waiting {
  constructor(milliseconds) {
    this.end = performance.now() + milliseconds
    this.turn = 0
  }

  get left() {
    return Math.max(0, this.end - performance.now())
  }

  /** No further tries: what is under way may end. */
  stop() {
    this.end = 0
  }

  /** Waits before the next try; `false` at once where that would not end in time. */
  async rest(asked = null) {
    const whole = Math.min(250 * 2 ** this.turn, 8_000)
    const pause = asked === null ? whole / 2 + (Math.random() * whole) / 2 : asked + (Math.random() * Math.max(asked, 1_000)) / 4
    if (pause >= this.left) return false
    this.turn += 1
    await new Promise((resolve) => setTimeout(resolve, pause))
    return true
  }
}
