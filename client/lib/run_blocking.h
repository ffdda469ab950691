// For programs without an event loop of their own: runs one task to its end on an executor that nobody else
// runs.
#pragma once

#include <optional>
#include <utility>

#include "fs/base/check.h"
#include "fs/base/result.h"
#include "fs/net/sync.h"

namespace gradfs {

namespace internal {

template <class T>
Task<> run_to_end(Task<Result<T>> task, std::optional<Result<T>>& out, Executor& executor) {
  out.emplace(co_await std::move(task));
  executor.stop();
}

}  // namespace internal

// Returns the task's result. The calling thread is the executor's while it runs; the task's own deadlines
// bound it.
template <class T>
Result<T> run_blocking(Executor& executor, Task<Result<T>> task) {
  std::optional<Result<T>> out;
  Scope scope(executor);
  executor.poll();  // makes an executor that was stopped ready to run again
  GRADFS_CHECK(scope.spawn(internal::run_to_end(std::move(task), out, executor)));
  executor.run();
  GRADFS_CHECK(out.has_value());
  executor.poll();  // what the task has let go of ends
  return std::move(*out);
}

}  // namespace gradfs
