// What the thread sanitizer must not report in the tests:
//  - RocksDB's library is not instrumented, so that its own synchronisation is not seen;
//  - a parameter server sends its model as it is, while updates go on (trainer/peers/paramserver.h).
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "race:librocksdb.so\n"
         "race:send_model\n";
}
#endif
#endif
