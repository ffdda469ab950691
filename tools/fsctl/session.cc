#include "tools/fsctl/session.h"

#include "tools/fsctl/output.h"

namespace gradfs::fsctl {
namespace {

Task<Result<void>> end_session(Filesystem& filesystem) {
  co_await filesystem.disconnect();
  co_return ok();
}

int run_at(const std::string& address, const std::function<Task<Result<void>>(Filesystem&)>& body) {
  auto session = Session::open(address);
  if (!session) return fail(session.error());
  const Result<void> done = session.value()->run(body(session.value()->filesystem()));
  return done ? 0 : fail(done.error());
}

}  // namespace

Session::Session(const std::string& address)
    : transport_(make_socket_transport(executor_)), filesystem_(executor_, *transport_, address, "fsctl") {}

Session::~Session() { (void)run(end_session(filesystem_)); }

Result<std::unique_ptr<Session>> Session::open(const std::string& address, std::int64_t timeout_ns) {
  std::unique_ptr<Session> session(new Session(address));
  GRADFS_TRY(session->hello_, session->run(session->filesystem_.connect(timeout_ns)));
  return session;
}

int run_command(const std::function<Task<Result<void>>(Filesystem&)>& body) {
  const auto address = master_from_environment();
  return address ? run_at(address.value(), body) : fail(address.error());
}

int run_path_command(const std::string& path,
                     const std::function<Task<Result<void>>(Filesystem&, std::string)>& body) {
  const auto translated = translate_path(path);
  if (!translated) return fail(translated.error());
  const std::string& master = translated.value().master;
  const auto address = master.empty() ? master_from_environment() : resolve_address(master);
  if (!address) return fail(address.error());
  return run_at(address.value(),
                [&](Filesystem& filesystem) { return body(filesystem, translated.value().path); });
}

}  // namespace gradfs::fsctl
