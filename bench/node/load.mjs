// The calls of `wigwag bench call`, for servers with protocols of their own: in rooms of two an offer of 3 KB, an answer
// of 3 KB and ten candidates of 200 bytes each way, so many at once; a room goes on when what was said has arrived.
//
//     node load.mjs socketio|peerjs URL PID PATTERN ROOMS SECONDS
//
// Prints one line of JSON. Whoever relays what a caller said to the other one is charged for one message.
import { readFileSync } from 'node:fs'
import { execFileSync } from 'node:child_process'
import { io } from 'socket.io-client'
import WebSocket from 'ws'

const [protocol, url, pid, pattern, rooms, seconds] = process.argv.slice(2)
const SIDE = 11
const size = { single: 1, group: 4, burst: SIDE }[pattern]
const WARM_UP = 1
const PATIENCE = 3

const filled = (head, length) => head + 'a=rtpmap:96 VP8/90000 '.repeat(length / 22 + 1).slice(0, length - head.length)
const DESCRIPTION = filled('v=0 ', 2900)
const CANDIDATE = filled('candidate:842163049 1 udp ', 100)
const ticks = Number(execFileSync('getconf', ['CLK_TCK']).toString())

const cpuOf = (process_) => {
  const fields = readFileSync(`/proc/${process_}/stat`, 'utf8').split(') ').pop().split(' ')
  return (Number(fields[11]) + Number(fields[12])) / ticks
}

// Each client of a room has `say(message)`, and calls `heard(message)`.
const clients = {
  socketio: (room, side, heard) => new Promise((resolve, reject) => {
    const socket = io(url, { transports: ['websocket'], forceNew: true, reconnection: false, perMessageDeflate: false })
    socket.on('connect_error', reject)
    socket.on('signal', heard)
    socket.on('connect', () => socket.emit('join', `bench-${room}`, () => {
      resolve({ say: (message) => socket.emit('signal', `bench-${room}`, message) })
    }))
  }),
  peerjs: (room, side, heard) => new Promise((resolve, reject) => {
    const name = (of) => `bench-${room}-${of}`
    const address = `${url}/peerjs?key=peerjs&id=${name(side)}&token=t${room}-${side}`
    const socket = new WebSocket(address, { perMessageDeflate: false })
    socket.on('error', reject)
    socket.on('message', (data) => {
      const message = JSON.parse(data)
      if (message.type === 'OPEN') {
        const say = (payload) => socket.send(JSON.stringify({ type: payload.kind, dst: name(1 - side), payload }))
        resolve({ say })
      } else if (message.payload) {
        heard(message.payload)
      }
    })
  }),
}

let [sent, delivered, closed] = [0, 0, false]
let latencies = []

class Room {
  turn = 0
  awaited = 0
  sides = []

  async open(number) {
    for (const side of [0, 1]) {
      this.sides.push(await clients[protocol](number, side, (message) => this.heard(message)))
    }
  }

  speak() {
    const side = this.turn % 2
    const first = (Math.floor(this.turn / 2) % Math.ceil(SIDE / size)) * size
    const messages = Math.min(size, SIDE - first)
    this.turn += 1
    this.awaited = messages
    this.touched = performance.now()
    for (let nth = first; nth < first + messages; nth += 1) {
      const at = performance.now()
      const described = nth === 0
      const kind = described ? (side === 0 ? 'OFFER' : 'ANSWER') : 'CANDIDATE'
      const body = described
        ? { sdp: { type: kind.toLowerCase(), sdp: DESCRIPTION } }
        : { candidate: { candidate: CANDIDATE, sdpMid: '0', sdpMLineIndex: 0 } }
      this.sides[side].say({ kind, turn: this.turn, at, ...body })
    }
    sent += messages
  }

  heard(message) {
    if (message.turn !== this.turn) return
    delivered += 1
    latencies.push(performance.now() - message.at)
    this.awaited -= 1
    if (this.awaited === 0 && !closed) this.speak()
  }
}

const all = Array.from({ length: Number(rooms) }, () => new Room())
for (const [number, room] of all.entries()) await room.open(number)
all.forEach((room) => room.speak())
const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time * 1000))
await sleep(WARM_UP)
const before = { at: performance.now(), delivered, server: cpuOf(pid), own: cpuOf(process.pid) }
latencies = []
await sleep(Number(seconds))
const took = (performance.now() - before.at) / 1000
const measured = delivered - before.delivered
const [server, own] = [cpuOf(pid) - before.server, cpuOf(process.pid) - before.own]
const sorted = Float64Array.from(latencies).sort()
const at = (share) => 1000 * (sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0)
closed = true
const end = performance.now() + PATIENCE * 1000
while (delivered < sent && performance.now() < end) await sleep(0.05)
console.log(JSON.stringify({
  workload: 'call',
  messages_per_second: measured / took,
  server_cpu_us_per_message: (1e6 * server) / Math.max(measured, 1),
  generator_cpu_us_per_message: (1e6 * own) / Math.max(measured, 1),
  latency_us: { p50: at(0.5), p99: at(0.99), max: at(1) },
  lost: sent - delivered,
}))
process.exit(0)
