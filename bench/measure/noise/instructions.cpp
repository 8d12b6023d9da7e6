// Draws noise and forms x_t for argv[1] numbers with the native library: what instruction_count.py runs under callgrind.
#include <cstdio>
#include <cstdlib>

#include "rows.h"

extern "C" const char* ddpm_variant(int);
extern "C" void ddpm_run(const DdpmTask*, int);

int main(int count, char** words) {
  if (count != 3) return 2;
  const int64_t size = std::atoll(words[1]);
  const int variant = std::atoi(words[2]);
  const auto zeros = [size] { return static_cast<float*>(std::calloc(size, sizeof(float))); };  // not counted: fresh pages
  const float signal = 0.6f, noise = 0.8f;
  DdpmTask task = {zeros(), &signal, &noise, zeros(), zeros(), 1, size, 7, 0, 3, 0, kFloat32, 1, 0};
  ddpm_run(&task, variant);
  std::printf("%s\n", ddpm_variant(variant));
}
