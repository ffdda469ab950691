// Task<T>: a coroutine. Asio's awaitable, of which only the declaration is needed here: what instantiates
// Asio lies in fs/net. A Task starts when it is awaited, or when it is spawned into a Scope (fs/net/scope.h).
#pragma once

#include <boost/asio/awaitable.hpp>

namespace gradfs {

template <class T = void>
using Task = boost::asio::awaitable<T>;

}  // namespace gradfs
