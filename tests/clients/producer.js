// A producer in Node: publishes requests with amqplib, one in ten of them broken.
//
// Usage: node producer.js URL COUNT, with NODE_PATH at the folder of modules. Prints what it
// published, a JSON object a line; `sha256` is that of the body.

const { createHash } = require('node:crypto')
const amqp = require('amqplib')

// At most so many publishes wait for their confirm.
const IN_FLIGHT_MAX = 100

function request(number, sendId) {
  return {
    emailId: 4126643121,
    message: { to: `grace${number}@example.com`, sendId },
    contactProperties: { firstname: 'Grace' },
  }
}

function to(address) {
  return (good) => ({ ...good, message: { ...good.message, to: address(good.message.to) } })
}

// Each takes a good request and returns what goes out instead of it.
const BROKEN = {
  float_email_id: (good) => ({ ...good, emailId: 4126643121.5 }),
  text_email_id: (good) => ({ ...good, emailId: '4126643121' }),
  negative_email_id: (good) => ({ ...good, emailId: -1 }),
  empty_recipient: to(() => ''),
  no_address: to((address) => address.replace('@', ' at ')),
  no_object: (good) => [good],
  properties_no_object: (good) => ({ ...good, contactProperties: ['Grace'] }),
  no_such_account: (good) => ({ ...good, dispatch: { account: 'nobody' } }),
  rejected: to((address) => address.replace('@', '+http400@')),
  refused: to((address) => address.replace('@', '+PREVIOUSLY_BOUNCED@')),
}
const KINDS = Object.keys(BROKEN)

async function main(url, count) {
  const connection = await amqp.connect(url)
  const channel = await connection.createConfirmChannel()
  channel.on('return', () => {
    throw new Error('unroutable: is a worker running?')
  })
  for (let number = 0; number < count; number += 1) {
    const sendId = `node-${String(number).padStart(5, '0')}`
    const good = request(number, sendId)
    const broken = number % 10 === 9 ? KINDS[Math.floor(number / 10) % KINDS.length] : null
    const body = Buffer.from(JSON.stringify(broken ? BROKEN[broken](good) : good))
    channel.publish('postrider', 'send.default.high', body, {
      persistent: true,
      mandatory: true,
      messageId: sendId,
    })
    const sha256 = createHash('sha256').update(body).digest('hex')
    console.log(JSON.stringify({ sha256, id: sendId, broken }))
    if (number % IN_FLIGHT_MAX === 0) await channel.waitForConfirms()
  }
  // Rejects when the broker refused one.
  await channel.waitForConfirms()
  await connection.close()
}

main(process.argv[2], Number(process.argv[3]))
