#include "app/command.h"
#include "common/cpu.h"

int main(int argc, char** argv) {
  preceptor::arrange_cpu(argv);
  return preceptor::app::run(argc, argv);
}
