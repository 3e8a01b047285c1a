// Preloaded into a process under test: its wall clock is off by as many seconds as the file says that the variable
// CLOCK_SHIFT_FILE names. Monotonic clocks are left alone, as they are where an administrator or NTP sets a machine's clock.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

// One 64-bit number in memory that is shared with the test.
static const volatile int64_t *shift_seconds;

__attribute__((constructor)) static void open_shift(void) {
  const char *file = getenv("CLOCK_SHIFT_FILE");
  if (file == NULL) return;
  const int fd = open(file, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  void *memory = mmap(NULL, sizeof *shift_seconds, PROT_READ, MAP_SHARED, fd, 0);
  if (memory != MAP_FAILED) shift_seconds = memory;
  close(fd);
}

static int64_t shift(void) { return shift_seconds == NULL ? 0 : *shift_seconds; }

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (real == NULL) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  const int result = real(clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
  return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec time;
  if (clock_gettime(CLOCK_REALTIME, &time) != 0) return -1;
  now->tv_sec = time.tv_sec;
  now->tv_usec = time.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *result) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (result != NULL) *result = now.tv_sec;
  return now.tv_sec;
}
