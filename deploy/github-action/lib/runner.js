// What a step and the runner say to each other: inputs and state as variables, commands on stdout, values through files.
// https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions

import { randomBytes } from 'node:crypto'
import { appendFileSync } from 'node:fs'
import { EOL } from 'node:os'

/** What is said to the job's author; `hint` is what to do about it. */
export class Failure extends Error {
  constructor(message, hint = '') {
    super(message)
    this.hint = hint
  }
}

// Every control character, and the two that some readers take for line ends.
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/u
const CONTROLS = new RegExp(CONTROL.source, 'gu')

export const hasControl = (text) => CONTROL.test(text)

/**
 * Text that others chose, made fit for the middle of a log line: nothing in it ends the line, and nothing is a command. The
 * runner takes `::` for one at the beginning of a line alone, but `##[…]` anywhere.
 */
export const clean = (text, most = 500) => {
  const line = String(text).replace(CONTROLS, ' ').replaceAll('##[', '## [')
  return line.length > most ? `${line.slice(0, most)} …` : line
}

/** The value of an input. One with a control character is refused: a scope with a line feed is an attack, or a mistake. */
export const input = (name) => {
  const value = (process.env[`INPUT_${name.replaceAll(' ', '_').toUpperCase()}`] ?? '').trim()
  if (hasControl(value)) throw new Failure(`input \`${name}\` holds a control character or a line feed`)
  return value
}

/** The same, and it must be there. */
export const needed = (name) => {
  const value = input(name)
  if (!value) throw new Failure(`input \`${name}\` is missing`)
  return value
}

/** What the main step kept for the post step. */
export const state = (name) => process.env[`STATE_${name}`] ?? ''

const escape = (text) => text.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A')
const escapeProperty = (text) => escape(text).replaceAll(':', '%3A').replaceAll(',', '%2C')

const command = (name, text, properties = {}) => {
  const told = Object.entries(properties).map(([key, value]) => `${key}=${escapeProperty(value)}`)
  process.stdout.write(`::${name}${told.length ? ` ${told.join(',')}` : ''}::${escape(text)}${EOL}`)
}

/** Says a line. `text` is ours; what is not goes through `clean` first. */
export const say = (text) => process.stdout.write(`cambio: ${text}${EOL}`)
export const warning = (title, text) => command('warning', text, { title })
export const error = (title, text) => command('error', text, { title })

const hidden = new Set()

/**
 * Has the runner hide `secret` in everything that is printed from here on: as a whole, each of its lines (logs are read by
 * line), and as a URI spells it. To be called before anything else can know the value.
 */
export const mask = (secret) => {
  const lines = secret.split(/[\r\n]+/u)
  for (const part of [secret, ...lines, encodeURIComponent(secret.toWellFormed())]) {
    if (!part.trim() || hidden.has(part)) continue
    hidden.add(part)
    command('add-mask', part)
  }
}

/** Appends `values` to the file that variable `place` names, each between delimiters that nobody can foresee. */
const record = (place, values) => {
  const path = process.env[place]
  if (!path) throw new Failure(`\`${place}\` is not set: this is no step of a GitHub Actions job`)
  let text = ''
  for (const [name, value] of values) {
    if (hasControl(value)) throw new Failure(`the value of \`${name}\` holds a control character or a line feed`, 'take `export: file`')
    const end = `cambio_${randomBytes(16).toString('hex')}`
    text += `${name}<<${end}${EOL}${value}${EOL}${end}${EOL}`
  }
  appendFileSync(path, text)
}

export const exportVariables = (values) => record('GITHUB_ENV', values)
export const setOutputs = (values) => record('GITHUB_OUTPUT', values)
export const keep = (values) => record('GITHUB_STATE', values)
