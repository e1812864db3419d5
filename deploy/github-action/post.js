// After the job, however it ended: the lease ends, and what was written to disk goes. A failure here is told, and fails no job:
// the credential ends by itself when its time is over.

import { base, revoke } from './lib/broker.js'
import { remove } from './lib/folder.js'
import { Waiting } from './lib/http.js'
import { Failure, clean, mask, say, state, warning } from './lib/runner.js'

try {
  remove(state('nonce'))
} catch (failure) {
  // The lease is to end all the same.
  warning('Cambio', `the file of \`export: file\` could not be removed: ${clean(failure?.code ?? failure?.name, 60)}`)
}

const token = state('lease_token')
const id = clean(state('exchange_id'), 60)
const ends = clean(state('expires_at'), 60) || 'a time that the broker did not say'
const lease = clean(state('lease_id'), 60)

if (token) {
  mask(token)
  const byHand = `whoever runs the broker types \`cambio leases revoke --exchange ${id} --reason "the job has ended"\``
  try {
    const authority = Buffer.from(state('authority'), 'base64').toString('utf8')
    const how = await revoke(base(state('broker'), 'the broker that was kept'), token, authority, new Waiting(20_000))
    if (how === 'ended') say(`lease \`${lease}\` has ended`)
    else warning('Cambio', `the end of lease \`${lease}\` is recorded, and the broker goes on trying: its server does not answer yet`)
  } catch (failure) {
    const reason = failure instanceof Failure ? failure.message : `unforeseen: ${clean(failure?.name)}`
    warning('Cambio', `lease \`${lease}\` could not be ended: ${reason}. It ends by itself at ${ends}; to end it sooner, ${byHand}`)
  }
} else if (state('kept') === 'true') {
  say(`\`revoke: false\`: the credential of exchange \`${id}\` is good until ${ends}`)
} else if (id) {
  say(`nothing to end: the credential of exchange \`${id}\` has no lease, and is good until ${ends}`)
} else {
  say('nothing to end: nothing was issued')
}
