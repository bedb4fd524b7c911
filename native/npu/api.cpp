// The C interface of npu.h: null checks, then the device.
#include "../error.hpp"
#include "../handle.hpp"
#include "handle.hpp"
#include "lane_sums.hpp"

namespace {
int no_device() { return rl::fail("the NPU is null, expected an open one"); }
}  // namespace

extern "C" {

rl_npu *rl_npu_open(int32_t flavour) {
  rl::Shared<rl::npu::Npu> core = rl::npu::Npu::open(flavour);
  if (!core) return nullptr;
  rl::Owned<rl_npu> npu = rl::make_owned<rl_npu>(rl_npu{std::move(core)});
  if (npu == nullptr) rl::fail("not enough memory for the NPU; free some memory");
  return npu.release();
}

void rl_npu_close(rl_npu *npu) { rl::Owned<rl_npu>{npu}.reset(); }

int32_t rl_npu_describe(const rl_npu *npu, rl_npu_description *description) {
  if (npu == nullptr || description == nullptr) return no_device();
  npu->core->describe(*description);
  return 0;
}

int32_t rl_npu_allocate(rl_npu *npu, int32_t space, int64_t bytes) {
  return npu == nullptr ? no_device() : npu->core->allocate(space, bytes);
}

int32_t rl_npu_release(rl_npu *npu, int32_t buffer) {
  return npu == nullptr ? no_device() : npu->core->release(buffer);
}

uint8_t *rl_npu_data(rl_npu *npu, int32_t buffer) {
  if (npu == nullptr) no_device();
  const rl::npu::Memory *memory = npu == nullptr ? nullptr : npu->core->memory(buffer);
  return memory == nullptr ? nullptr : memory->data;
}

int64_t rl_npu_address(rl_npu *npu, int32_t buffer) {
  if (npu == nullptr) return no_device();
  const rl::npu::Memory *memory = npu->core->memory(buffer);
  return memory == nullptr ? -1 : static_cast<int64_t>(memory->address);
}

int32_t rl_npu_sync(rl_npu *npu, int32_t buffer, int64_t offset, int64_t bytes, int32_t direction) {
  return npu == nullptr ? no_device() : npu->core->sync(buffer, offset, bytes, direction);
}

int32_t rl_npu_program_create(rl_npu *npu, const rl_npu_chain *chain, int32_t buffer, int64_t offset) {
  if (npu == nullptr || chain == nullptr) return no_device();
  return npu->core->create_program(*chain, buffer, offset);
}

int32_t rl_npu_program_destroy(rl_npu *npu, int32_t program) {
  return npu == nullptr ? no_device() : npu->core->destroy_program(program);
}

int32_t rl_npu_program_bind(rl_npu *npu, int32_t program, const rl_npu_binding *bindings, int32_t roles) {
  return npu == nullptr ? no_device() : npu->core->bind(program, bindings, roles);
}

int32_t rl_npu_submit(rl_npu *npu, const int32_t *programs, int32_t count, int32_t timeout_ms) {
  return npu == nullptr ? no_device() : npu->core->submit(programs, count, timeout_ms);
}

int32_t rl_npu_wait(rl_npu *npu) { return npu == nullptr ? no_device() : npu->core->wait(); }

int32_t rl_npu_probe(rl_npu *npu, const int32_t *programs, int32_t count, const rl_npu_expected *expected,
                     int32_t n_expected, int32_t timeout_ms, int32_t idle_ms) {
  return npu == nullptr ? no_device() : npu->core->probe(programs, count, expected, n_expected, timeout_ms, idle_ms);
}

int64_t rl_npu_wrong_sums(const rl_npu_lane *lane, const int32_t *vectors, int32_t n_vectors, const int32_t *columns,
                          int32_t n_columns, int32_t *where) {
  if (lane == nullptr || vectors == nullptr || columns == nullptr || where == nullptr)
    return rl::fail("the lane or its sums are null, expected both");
  return rl::npu::wrong_sums(*lane, vectors, n_vectors, columns, n_columns, where);
}

int32_t rl_npu_use_cores(rl_npu *npu, int32_t core_mask) {
  return npu == nullptr ? no_device() : npu->core->use_cores(core_mask);
}

int32_t rl_npu_try(rl_npu *npu, const int32_t *programs, int32_t count, const rl_npu_expected *expected,
                   int32_t n_expected, int32_t timeout_ms, int32_t runs) {
  return npu == nullptr ? no_device() : npu->core->try_job(programs, count, expected, n_expected, timeout_ms, runs);
}

int32_t rl_step_use_npu(rl_step *step, rl_npu *npu, const rl_npu_plan *plan) {
  if (step == nullptr || (npu == nullptr) != (plan == nullptr))
    return rl::fail("a step got only one of an NPU and its plan, expected both or neither");
  return step->core->use_npu(npu == nullptr ? nullptr : &npu->core, plan);
}

int32_t rl_step_attend_on_npu(rl_step *step, const rl_npu_attention *plan) {
  return step == nullptr ? rl::fail("the step is null, expected an open one") : step->core->attend_on_npu(plan);
}

int32_t rl_step_npu_work(const rl_step *step, rl_npu_work *work) {
  if (step == nullptr || work == nullptr) return rl::fail("the step is null, expected an open one");
  *work = rl_npu_work{};
  step->core->npu_work(*work);
  return 0;
}

}  // extern "C"
