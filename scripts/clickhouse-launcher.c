/* Runs ClickHouse's local tool, which the library beside this program carries, with the same arguments. */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
  char path[PATH_MAX + 16];
  ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
  if (length <= 0) return 1;
  path[length] = 0;
  strcpy(strrchr(path, '/') + 1, "libchdb.so");
  void *library = dlopen(path, RTLD_NOW);
  void *run = library ? dlsym(library, "chdb_query_cmdline") : NULL;
  if (!run) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  /* The tool looks at its own name for what it shall be. */
  argv[0] = "clickhouse";
  return ((void *(*)(int, char **))run)(argc, argv) == NULL;
}
