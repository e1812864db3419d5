// The broker: one exchange (RFC 8693 section 2), and the end of what came of it (RFC 7009).

import { NoAnswer, object, retryAfter, safeUrl, send } from './http.js'
import { Failure, clean } from './runner.js'

const FORM = { 'content-type': 'application/x-www-form-urlencoded' }

/** The broker's issuer URL without a slash at its end. `what`: where it comes from. */
export const base = (text, what = 'input `broker`') => {
  const url = safeUrl(what, text)
  if (url.search || url.hash) throw new Failure(`${what} has a query or a fragment, expected the broker's issuer URL`)
  return url.href.replace(/\/+$/u, '')
}

const explain = (id) => (id ? `whoever runs the broker types \`cambio policy explain ${id}\`` : '')
const nameOf = (members) => (typeof members?.exchange_id === 'string' ? clean(members.exchange_id, 60) : '')

/**
 * Exchanges `form.subject_token`. Asks again only while it is sure that the token is unspent: nobody listened, or the broker
 * said `Retry-After`, which it sends only then. An answer that was lost is not asked for again: a credential may exist.
 * Answers whatever object came with 200, unread: a lease may be in it that has to end. `judge` is for afterwards.
 */
export const exchange = async (broker, form, authority, waiting) => {
  const body = new URLSearchParams({
    grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
    subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    ...form,
  }).toString()
  for (;;) {
    let answer
    try {
      answer = await send(new URL(`${broker}/token`), { method: 'POST', headers: FORM, body, authority, left: waiting.left })
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error
      if (!error.sent && !error.tls && (await waiting.rest())) continue
      const hint = error.tls
        ? 'if its certificate comes from a private authority, name that one with `ca-file`'
        : error.sent
          ? 'the token may be used up, and a credential may exist until its time is over: run the job again'
          : 'does the broker run, and does this runner reach that address?'
      throw new Failure(`no answer from ${clean(broker)}: ${error.message}`, hint)
    }
    const members = object(answer)
    if (answer.status === 200 && members) return members
    if (!members || typeof members.error !== 'string') {
      const moved = answer.status >= 300 && answer.status < 400 ? ' (redirects are not followed)' : ''
      const hint = answer.status >= 500
        ? 'does something between here and the broker fail? the token may be used up'
        : 'is `broker` the issuer URL of a Cambio broker?'
      throw new Failure(`${clean(broker)} answered ${answer.status}, and nothing that a broker says${moved}`, hint)
    }
    const after = retryAfter(answer)
    if ((answer.status === 429 || answer.status === 503) && after !== null && (await waiting.rest(after))) continue
    const id = nameOf(members)
    const description = clean(members.error_description ?? 'without a description')
    const verb = answer.status === 429 || answer.status >= 500 ? 'the broker could not' : 'refused'
    const named = id ? ` (exchange \`${id}\`)` : ''
    const failure = new Failure(`${verb}: \`${clean(members.error, 60)}\`: ${description}${named}`, explain(id))
    failure.refused = verb === 'refused'
    throw failure
  }
}

/** Throws where an answer of `exchange` is none that RFC 8693 section 2.2.1 allows. */
export const judge = (broker, members) => {
  const named = explain(nameOf(members))
  const lacks = ['access_token', 'issued_token_type', 'token_type'].find((name) => typeof members[name] !== 'string' || !members[name])
  if (lacks) throw new Failure(`${clean(broker)} answered without a \`${lacks}\``, named)
  // `N_A` is for what is no access token.
  const { token_type: type } = members
  if (!/^(bearer|n_a)$/iu.test(type)) {
    throw new Failure(`${clean(broker)} answered with \`token_type\` \`${clean(type, 60)}\`, expected \`Bearer\` or \`N_A\``, named)
  }
}

/**
 * Ends the lease whose token is `token`. Asking twice does no harm, so whatever goes wrong is tried again in time.
 * Answers `ended`, `recorded` (the broker goes on trying), or throws.
 */
export const revoke = async (broker, token, authority, waiting) => {
  const body = new URLSearchParams({ token, token_type_hint: 'access_token' }).toString()
  for (;;) {
    let said
    let after = null
    try {
      const answer = await send(new URL(`${broker}/revoke`), { method: 'POST', headers: FORM, body, authority, left: waiting.left })
      if (answer.status === 200) return 'ended'
      const members = object(answer)
      // RFC 7009 section 2.2.1. The broker's own 503 says that it is written down, and tried until it is done.
      if (answer.status === 503 && /recorded/u.test(members?.error_description ?? '')) return 'recorded'
      said = `the broker answered ${answer.status}${members?.error ? ` \`${clean(members.error, 60)}\`` : ''}`
      if (answer.status < 500 && answer.status !== 429) throw new Failure(said)
      after = retryAfter(answer)
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error
      said = `no answer: ${error.message}`
      if (error.tls) throw new Failure(said)
    }
    if (!(await waiting.rest(after))) throw new Failure(said)
  }
}
