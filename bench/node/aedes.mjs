// aedes with MQTT over WebSocket: node aedes.mjs PORT
import { createServer } from 'node:http'
import { Aedes } from 'aedes'
import { WebSocketServer, createWebSocketStream } from 'ws'

const broker = await Aedes.createBroker()
const http = createServer()
const sockets = new WebSocketServer({ server: http, handleProtocols: () => 'mqtt', perMessageDeflate: false })
sockets.on('connection', (socket, request) => {
  socket._socket.setNoDelay(true)
  broker.handle(createWebSocketStream(socket), request)
})
http.listen(Number(process.argv[2]), '127.0.0.1')
