// HubSpot's own Node client against the sandbox: it must understand every answer.
//
// Usage: node hubspot_client.js BASE_URL, with NODE_PATH at the folder of modules. The sandbox
// accepts the token `pat-na1-test` only, and its results are there at once.

const assert = require('node:assert/strict')
const { Client } = require('@hubspot/api-client')
const transactional = require('@hubspot/api-client/lib/codegen/marketing/transactional')
const { ObjectSerializer } = require('@hubspot/api-client/lib/codegen/marketing/transactional/models/ObjectSerializer')

const BASE = process.argv[2]

function client(token = 'pat-na1-test') {
  return new Client({ accessToken: token, basePath: BASE })
}

function send(to, sendId, token) {
  return client(token).marketing.transactional.singleSendApi.sendEmail({
    emailId: 4126643121,
    message: { to, sendId },
    contactProperties: { firstname: 'Ada' },
    customProperties: { order: '1042' },
  })
}

function request(options, token) {
  return client(token).apiRequest(options)
}

// Reads a status with the client's own model: there is no typed call for it.
function typed(body) {
  return ObjectSerializer.deserialize(body, 'EmailSendStatusView', '')
}

async function lookUp(statusId) {
  const path = `/marketing/v3/email/send-statuses/${encodeURIComponent(statusId)}`
  const answer = await request({ path })
  assert.equal(answer.status, 200)
  return typed(await answer.json())
}

async function checkSends() {
  const view = await send('ada@example.com', 'js-1')
  assert.equal(view.status, 'PENDING')
  assert.ok(view.requestedAt instanceof Date)
  const result = await lookUp(view.statusId)
  assert.deepEqual([result.status, result.sendResult], ['COMPLETE', 'SENT'])
  assert.ok(result.completedAt instanceof Date && result.eventId.created instanceof Date)

  const again = await send('ada@example.com', 'js-1')
  assert.notEqual(again.statusId, view.statusId)
  assert.equal((await lookUp(again.statusId)).sendResult, 'IDEMPOTENT_IGNORE')
}

// The client has no typed call for the marketing single send.
async function checkMarketing() {
  for (const path of ['/marketing/v4/email/single-send', '/marketing/email-campaigns/2026-03/single-send']) {
    const body = { emailId: 1, message: { to: 'ada@example.com', sendId: `js-${path}` } }
    const answer = await request({ method: 'POST', path, body })
    assert.equal(answer.status, 200)
    const view = typed(await answer.json())
    assert.equal((await lookUp(view.statusId)).sendResult, 'SENT')
  }
}

async function checkEveryResult() {
  const { results } = await (await request({ path: '/_sandbox/faults' })).json()
  assert.equal(results.length, 51)
  for (const result of results) {
    const view = await send(`ada+${result}@example.com`, `js-${result}`)
    const told = await lookUp(view.statusId)
    assert.equal(told.sendResult, result)
    assert.ok(['COMPLETE', 'CANCELED'].includes(told.status))
  }
  const known = Object.values(transactional.EmailSendStatusViewSendResultEnum ?? {})
  for (const result of known) assert.ok(results.includes(result), `${result} is not modelled`)
}

async function checkErrors() {
  const cases = [
    ['ada@example.com', 'wrong', 401, 'INVALID_AUTHENTICATION'],
    ['ada+http403@example.com', undefined, 403, 'MISSING_SCOPES'],
    ['ada+http400@example.com', undefined, 400, 'VALIDATION_ERROR'],
    ['ada+http404@example.com', undefined, 404, undefined],
    ['ada+http429@example.com', undefined, 429, undefined],
    ['ada+daily@example.com', undefined, 429, undefined],
    ['ada+http477@example.com', undefined, 477, undefined],
    ['ada+http500@example.com', undefined, 500, undefined],
    ['ada+http502@example.com', undefined, 502, undefined],
    ['ada+http503@example.com', undefined, 503, undefined],
    ['ada+http504@example.com', undefined, 504, undefined],
  ]
  for (const [to, token, status, category] of cases) {
    const error = await send(to, `js-${to}`, token).then(
      () => assert.fail(`${to}: no error`),
      (error) => error,
    )
    assert.equal(error.constructor.name, 'ApiException', `${to}: ${error}`)
    assert.equal(error.code, status, to)
    assert.equal(error.body.category, category, to)
    assert.ok(error.body.message, to)
    assert.equal(error.body.correlationId, error.headers['x-hubspot-correlation-id'], to)
  }
  const text = await send('ada+400-text@example.com', 'js-text').catch((error) => error)
  assert.deepEqual([text.constructor.name, text.code], ['ApiException', 400])
}

// The client's own retry reads `policyName` of a 429 and the status of a 5xx.
async function checkRetry() {
  const patient = new Client({ accessToken: 'pat-na1-test', basePath: BASE, numberOfApiCallRetries: 3 })
  const view = await patient.marketing.transactional.singleSendApi.sendEmail({
    emailId: 1,
    message: { to: 'ada+http503x2@example.com', sendId: 'js-retry' },
  })
  assert.equal(view.status, 'PENDING')
}

async function checkAccount() {
  const details = await (await request({ path: '/account-info/v3/details' })).json()
  assert.ok(Number.isInteger(details.portalId))
  const answer = await request({
    method: 'POST',
    path: '/oauth/v2/private-apps/get/access-token-info',
    body: { tokenKey: 'pat-na1-test' },
  })
  const info = await answer.json()
  assert.equal(info.hubId, details.portalId)
  assert.ok(info.scopes.includes('transactional-email'))
}

async function main() {
  await checkSends()
  await checkMarketing()
  await checkEveryResult()
  await checkErrors()
  await checkRetry()
  await checkAccount()
  console.log('understood')
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
