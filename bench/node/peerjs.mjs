// PeerJS's own server: node peerjs.mjs PORT
import { PeerServer } from 'peer'

PeerServer({ port: Number(process.argv[2]), host: '127.0.0.1', path: '/', concurrent_limit: 100000 })
