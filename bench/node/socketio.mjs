// A signaling server as tutorials have it, on Socket.IO: rooms, and what is said goes to everybody else.
//
//     node socketio.mjs PORT
import { createServer } from 'node:http'
import { Server } from 'socket.io'

const http = createServer()
const io = new Server(http, { transports: ['websocket'], perMessageDeflate: false })
io.on('connection', (socket) => {
  socket.on('join', async (room, joined) => {
    await socket.join(room)
    joined()
  })
  socket.on('signal', (room, message) => socket.to(room).emit('signal', message))
})
http.listen(Number(process.argv[2]), '127.0.0.1')
