#include "trainer/control.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <new>
#include <string>

namespace gradfs::trainer {
namespace {

Result<void*> map_page(const UniqueFd& fd) {
  void* page = ::mmap(nullptr, sizeof(RunControl), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (page == MAP_FAILED) return errno_error("mmap");
  return page;
}

}  // namespace

Result<std::unique_ptr<SharedControl>> SharedControl::make() {
  UniqueFd fd(::memfd_create("gradfs-train-control", MFD_CLOEXEC));
  if (!fd || ::ftruncate(fd.get(), sizeof(RunControl)) != 0) return errno_error("memfd_create");
  GRADFS_TRY(void* page, map_page(fd));
  return std::unique_ptr<SharedControl>(new SharedControl(std::move(fd), new (page) RunControl));
}

Result<std::unique_ptr<SharedControl>> SharedControl::open(const std::string& path) {
  GRADFS_TRY(UniqueFd fd, open_file(path, O_RDWR));
  GRADFS_TRY(void* page, map_page(fd));
  return std::unique_ptr<SharedControl>(new SharedControl(std::move(fd), static_cast<RunControl*>(page)));
}

SharedControl::~SharedControl() { ::munmap(control_, sizeof(RunControl)); }

}  // namespace gradfs::trainer
