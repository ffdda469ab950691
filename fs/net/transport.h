// Transport: connections that carry whole frames. TCP and Unix sockets are real; sim.h has the simulated one.
//
// Addresses are text: "ADDR:PORT" for TCP, "/path" for a Unix socket. Frames on a Unix socket may carry
// descriptors. A connection has one reader and one writer at a time; close() may come at any time and ends
// both with kUnavailable.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fs/base/fd.h"
#include "fs/net/executor.h"
#include "fs/wire/frame.h"

namespace gradfs {

struct Frame {
  FrameHeader header;
  std::string message;
  std::vector<UniqueFd> descriptors;
};

class Connection {
 public:
  virtual ~Connection() = default;
  // The next frame. kUnavailable at the end of the stream, kCorrupt for a bad frame (then close).
  virtual Task<Result<Frame>> read() = 0;
  virtual Task<Result<void>> write(Frame frame) = 0;
  virtual void close() = 0;
  // Credentials of a Unix peer; -1 on TCP.
  virtual int peer_uid() const = 0;
};

class Listener {
 public:
  virtual ~Listener() = default;
  virtual Task<Result<std::unique_ptr<Connection>>> accept() = 0;
  virtual void close() = 0;
  // The address in use ("127.0.0.1:7400" for port 0 given as ":0").
  virtual std::string address() const = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual Task<Result<std::unique_ptr<Connection>>> connect(std::string address, std::int64_t timeout_ns) = 0;
  virtual Result<std::unique_ptr<Listener>> listen(const std::string& address) = 0;
};

// Sockets of the operating system on this executor.
std::unique_ptr<Transport> make_socket_transport(Executor& executor);

}  // namespace gradfs
