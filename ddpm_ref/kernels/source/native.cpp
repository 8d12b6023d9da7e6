// The C ABI of the native provider: picks the instruction set, shares the work among threads.
#include <sys/mman.h>

#include "rows.h"

using Rows = void(const DdpmTask*, int64_t, int64_t, int64_t);
extern "C" {
Rows ddpm_rows_baseline;
#if defined(__x86_64__)
Rows ddpm_rows_avx2, ddpm_rows_avx512;
#endif
}

namespace {

struct Variant {
  const char* name;
  Rows* rows;
  bool supported;
};

const Variant* variants() {  // best first, ends with a null name
#if defined(__x86_64__)
  __builtin_cpu_init();
  static const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  static const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") &&
                             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                             __builtin_cpu_supports("avx512vl");
#endif
  static const Variant table[] = {
#if defined(__x86_64__)
      {"avx512", ddpm_rows_avx512, avx512},
      {"avx2", ddpm_rows_avx2, avx2},
#endif
      {"baseline", ddpm_rows_baseline, true},
      {nullptr, nullptr, false}};
  return table;
}

constexpr int64_t kChunk = 1 << 15;      // numbers a thread takes at a time
constexpr int64_t kHugePages = 4 << 20;  // bytes from which 2 MiB pages pay

// Fresh memory costs a page fault every 4 KiB, as much time as the noise itself; ask for 2 MiB pages (advice, may be ignored).
void prefer_huge_pages(void* start, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  const uintptr_t page = 4096, begin = ((uintptr_t)start + page - 1) / page * page;
  const uintptr_t end = ((uintptr_t)start + bytes) / page * page;
  if (start && bytes >= kHugePages) madvise((void*)begin, end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace

// Name of the i-th instruction set that this processor has, best first; null past the last.
extern "C" const char* ddpm_variant(int i) {
  for (const Variant* v = variants(); v->name; ++v)
    if (v->supported && i-- == 0) return v->name;
  return nullptr;
}

// Does the task with the i-th supported instruction set (0 = best).
extern "C" void ddpm_run(const DdpmTask* task, int variant) {
  const Variant* v = variants();
  while (!v->supported || variant-- > 0) ++v;
  Rows* rows = v->rows;
  const int64_t width = task->type == kFloat64 ? 8 : task->type == kFloat32 ? 4 : 2;
  const int64_t group = task->type == kFloat64 ? kGroup64 : kGroup32;
  const int64_t per_row = (task->size + group - 1) / group, total = per_row * task->batch;
  const int64_t chunk = kChunk / group, chunks = (total + chunk - 1) / chunk;
  if (!task->given) prefer_huge_pages(task->eps, task->batch * task->size * width);
  prefer_huge_pages(task->x_t, task->batch * task->size * width);
#pragma omp parallel for schedule(dynamic) num_threads(task->threads) if (task->threads > 1 && chunks > 1)
  for (int64_t c = 0; c < chunks; ++c) {
    int64_t at = c * chunk;
    const int64_t stop = at + chunk < total ? at + chunk : total;
    while (at < stop) {
      const int64_t row = at / per_row, first = at % per_row;
      const int64_t end = per_row - first < stop - at ? per_row : first + (stop - at);
      rows(task, row, first, end);
      at += end - first;
    }
  }
}
