// The folder of `export: file`: one per step, for this user alone. Its name is made of a nonce that the main step keeps for the post
// step; the post step believes no path, so that a variable of the job (`STATE_…`) has nothing removed but such a folder.

import { lstatSync, mkdirSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const place = (nonce) => join(realpathSync(process.env.RUNNER_TEMP || tmpdir()), `cambio-${nonce}`)

/** Makes it. One that is there already is an error: somebody else made it. */
export const make = (nonce) => {
  const path = place(nonce)
  mkdirSync(path, { mode: 0o700 })
  return path
}

/** Takes it away, with all that is in it; a link of that name is none of ours. Throws where it can't be removed. */
export const remove = (nonce) => {
  if (!/^[0-9a-f]{32}$/u.test(nonce)) return
  const path = place(nonce)
  if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory()) rmSync(path, { recursive: true, force: true })
}
