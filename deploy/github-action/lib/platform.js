// The job's own token: `ACTIONS_ID_TOKEN_REQUEST_URL`, asked with an audience (GitHub Actions, and Forgejo, which speaks like it).

import { NoAnswer, object, retryAfter, safeUrl, send } from './http.js'
import { Failure, clean, mask } from './runner.js'

const URL_NAME = 'ACTIONS_ID_TOKEN_REQUEST_URL'
const TOKEN_NAME = 'ACTIONS_ID_TOKEN_REQUEST_TOKEN'

const remedy = () => {
  if (process.env.FORGEJO_ACTIONS === 'true' || process.env.GITEA_ACTIONS === 'true') {
    return 'write `enable-openid-connect: true` into the workflow or the job (Forgejo 15 and runner 12.5, or later)'
  }
  const line = 'write `permissions: { id-token: write, contents: read }` into the job'
  return process.env.GITHUB_EVENT_NAME?.startsWith('pull_request')
    ? `${line}. This is a pull request: one from a fork gets no token, whatever is written there`
    : line
}

/**
 * A token for `audience`. It is masked before it is returned. `authority`: PEM to trust besides the roots of Node.js, which a GitHub
 * Enterprise Server may need as well.
 */
export const idToken = async (audience, authority, waiting) => {
  const { [URL_NAME]: place, [TOKEN_NAME]: bearer } = process.env
  if (!place || !bearer) throw new Failure('this job gets no OIDC token', remedy())
  mask(bearer)
  const url = safeUrl(`\`${URL_NAME}\``, place)
  // It has a query already.
  url.searchParams.append('audience', audience)
  for (;;) {
    let said
    let after = null
    try {
      const answer = await send(url, { headers: { authorization: `bearer ${bearer}` }, authority, left: Math.min(waiting.left, 10_000) })
      const value = object(answer)?.value
      if (answer.status === 200 && typeof value === 'string' && /^[\x21-\x7e]{1,65536}$/u.test(value)) {
        mask(value)
        return value
      }
      if (answer.status < 500 && answer.status !== 429) {
        throw new Failure(`the platform answered ${answer.status} when it was asked for a token`, remedy())
      }
      said = `the platform answered ${answer.status}`
      after = retryAfter(answer)
    } catch (error) {
      // Nothing is used up by asking twice.
      if (!(error instanceof NoAnswer)) throw error
      said = `the platform did not answer: ${error.message}`
      if (error.tls) throw new Failure(said, 'if its certificate comes from a private authority, name that one with `ca-file`')
    }
    if (!(await waiting.rest(after))) throw new Failure(said, 'the platform is busy or away: run the job again')
  }
}

/** What a token says about itself, for whoever has to find out why it was refused. Nothing of it is verified. */
export const words = (token) => {
  try {
    const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString('utf8'))
    const said = (name) => `\`${clean(claims[name] ?? 'nobody', 200)}\``
    return `the token says: issued by ${said('iss')}, about ${said('sub')}, for ${said('aud')}`
  } catch {
    return 'the token says nothing that can be read'
  }
}
