#include "stream.hpp"

#include <cerrno>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "clock.hpp"
#include "error.hpp"

// As in pool.cpp: the version of these that every glibc since 2.28 has.
#if defined(ROCKLEDGE_OLD_GLIBC) && defined(__GLIBC__)
#if defined(__x86_64__)
__asm__(".symver pthread_create,pthread_create@GLIBC_2.2.5");
__asm__(".symver pthread_join,pthread_join@GLIBC_2.2.5");
__asm__(".symver pthread_sigmask,pthread_sigmask@GLIBC_2.2.5");
#elif defined(__aarch64__)
__asm__(".symver pthread_create,pthread_create@GLIBC_2.17");
__asm__(".symver pthread_join,pthread_join@GLIBC_2.17");
__asm__(".symver pthread_sigmask,pthread_sigmask@GLIBC_2.17");
#endif
#endif

namespace rl {
namespace {

constexpr std::int64_t kBlock = 4096;  // what direct reads are aligned to, in the file and in memory
constexpr int kMostThreads = 64;

class Locked {
 public:
  explicit Locked(pthread_mutex_t &lock) : lock_(lock) { pthread_mutex_lock(&lock_); }
  Locked(const Locked &) = delete;
  Locked &operator=(const Locked &) = delete;
  ~Locked() { pthread_mutex_unlock(&lock_); }

 private:
  pthread_mutex_t &lock_;
};

bool on_block(std::int64_t n) { return n >= 0 && n % kBlock == 0; }

std::int64_t strip_bytes(const rl_band &band) { return std::int64_t{tiles_of(band.cols)} * kStrip * kTile * band.bits / 8; }
std::int64_t strip_index_bytes(const rl_band &band) { return band.bits == 8 ? 0 : std::int64_t{tiles_of(band.cols)} * kStrip; }
int strips_of(const rl_band &band) { return (band.rows + kStrip - 1) / kStrip; }

}  // namespace

Shared<Stream> Stream::create(const Shared<Program> &program, const rl_stream_plan &plan) {
  Shared<Stream> stream = Shared<Stream>::make(program);
  if (!stream) {
    fail("not enough memory for a stream of weights; free some");
    return {};
  }
  return stream->check(plan) < 0 || stream->start(plan) < 0 ? Shared<Stream>{} : stream;
}

int Stream::check(const rl_stream_plan &plan) const {
  if (plan.pieces < 0 || plan.segments < 0 || plan.bands != static_cast<std::int32_t>(program_.bands().size()) ||
      (plan.pieces > 0 && plan.piece == nullptr) || (plan.segments > 0 && plan.segment == nullptr) ||
      (plan.bands > 0 && plan.placed == nullptr))
    return fail("a stream needs pieces, their segments, and a place for each of the program's %zu bands",
                program_.bands().size());
  if (plan.reader.threads < 1 || plan.reader.threads > kMostThreads || plan.gather_threads < 1 ||
      plan.gather_threads > (1 << 10))
    return fail("a stream with %d threads that read and %d that gather, expected 1 to %d and 1 to %d", plan.reader.threads,
                plan.gather_threads, kMostThreads, 1 << 10);
  if (!on_block(plan.reader.request_bytes) || plan.reader.request_bytes == 0 || plan.reader.file_bytes < 0 ||
      !on_block(plan.ring_bytes) || !on_block(plan.resident_bytes))
    return fail("a stream's requests, ring and resident memory are multiples of %lld bytes", static_cast<long long>(kBlock));
  int next_op = 0;
  for (int i = 0; i < plan.pieces; ++i)
    if (check_piece(plan, i, next_op) < 0) return -1;
  for (std::size_t o = static_cast<std::size_t>(next_op); o < program_.ops().size(); ++o)
    if (program_.ops()[o].code == RL_LINEAR) return fail("operation %zu has no piece of the stream", o);
  return check_bands(plan);
}

// `next_op`: all linears before it have their piece.
int Stream::check_piece(const rl_stream_plan &plan, int number, int &next_op) const {
  const rl_piece &piece = plan.piece[number];
  const Array<rl_op> &ops = program_.ops();
  while (next_op < static_cast<int>(ops.size()) && ops[static_cast<std::size_t>(next_op)].code != RL_LINEAR) ++next_op;
  if (piece.op != next_op || piece.op >= static_cast<int>(ops.size()))
    return fail("piece %d is of operation %d, expected %d, the next linear", number, piece.op, next_op);
  ++next_op;
  const bool kept = piece.resident >= 0;
  if (!on_block(piece.bytes) || (kept && (!on_block(piece.resident) || piece.resident > plan.resident_bytes - piece.bytes)) ||
      (!kept && piece.bytes > plan.ring_bytes))
    return fail("piece %d of %lld bytes does not lie in the %lld bytes of resident memory, or fit into the ring of %lld",
                number, static_cast<long long>(piece.bytes), static_cast<long long>(plan.resident_bytes),
                static_cast<long long>(plan.ring_bytes));
  if (piece.segments < 1 || piece.first_segment < 0 || piece.first_segment > plan.segments - piece.segments)
    return fail("piece %d has %d segments from %d on, of %d", number, piece.segments, piece.first_segment, plan.segments);
  for (int s = piece.first_segment; s < piece.first_segment + piece.segments; ++s) {
    const rl_segment &segment = plan.segment[s];
    if (!on_block(segment.file) || !on_block(segment.place) || !on_block(segment.bytes) || segment.bytes == 0 ||
        segment.place > piece.bytes - segment.bytes || segment.file >= plan.reader.file_bytes)
      return fail("segment %d lies outside its piece or the file, or not on whole blocks", s);
  }
  return 0;
}

int Stream::check_bands(const rl_stream_plan &plan) const {
  const auto inside = [](std::int64_t at, std::int64_t size, std::int64_t room, bool aligned) {
    return at >= 0 && at <= room - size && (!aligned || at % 64 == 0);
  };
  const auto fits = [&](int number, std::int64_t room, bool aligned) {
    const rl_band &band = program_.bands()[static_cast<std::size_t>(number)];
    const rl_placed &at = plan.placed[number];
    if (inside(at.codes, strips_of(band) * strip_bytes(band), room, aligned) &&
        (band.bits == 8 || inside(at.index, strips_of(band) * strip_index_bytes(band), room, aligned)))
      return true;
    fail("band %d does not lie inside its piece or the file, on 64 bytes", number);
    return false;
  };
  for (int p = 0; p < plan.pieces; ++p) {
    const rl_op &op = program_.ops()[static_cast<std::size_t>(plan.piece[p].op)];
    for (int b = op.first_band; b < op.first_band + op.bands; ++b)
      if (!fits(b, plan.piece[p].bytes, true)) return -1;
  }
  for (const rl_op &op : program_.ops())
    for (int b = op.first_band; op.code == RL_EMBED && b < op.first_band + op.bands; ++b)
      if (!fits(b, plan.reader.file_bytes, false)) return -1;
  return 0;
}

int Stream::start(const rl_stream_plan &plan) {
  const auto pieces = static_cast<std::size_t>(plan.pieces);
  std::int64_t strip = 0;
  for (const rl_op &op : program_.ops())
    for (int b = op.first_band; op.code == RL_EMBED && b < op.first_band + op.bands; ++b)
      strip = std::max(strip, strip_bytes(program_.bands()[static_cast<std::size_t>(b)]));
  staging_stride_ = round_up(strip, kBlock) + kBlock;  // an unaligned strip may touch one block more
  if (!bands_.allocate(program_.bands().size()) || !pieces_.allocate(pieces) ||
      !segments_.allocate(static_cast<std::size_t>(plan.segments)) || !placed_.allocate(program_.bands().size()) ||
      !piece_of_.allocate(program_.ops().size()) || !queue_.allocate(pieces + 1) ||
      !threads_.allocate(static_cast<std::size_t>(plan.reader.threads)) ||
      !ring_.allocate(static_cast<std::size_t>(plan.ring_bytes)) ||
      !kept_.allocate(static_cast<std::size_t>(plan.resident_bytes)) ||
      !staging_.allocate(static_cast<std::size_t>(2 * staging_stride_ * plan.gather_threads)))
    return fail("not enough memory for a ring of %lld bytes and %lld bytes of weights beside it; use a smaller budget",
                static_cast<long long>(plan.ring_bytes), static_cast<long long>(plan.resident_bytes));
  std::copy_n(program_.bands().data(), program_.bands().size(), bands_.data());
  std::copy_n(plan.segment, plan.segments, segments_.data());
  std::copy_n(plan.placed, plan.bands, placed_.data());
  std::fill(piece_of_.begin(), piece_of_.end(), -1);
  for (std::size_t p = 0; p < pieces; ++p) {
    pieces_[p] = Piece{plan.piece[p], kEmpty, 0, nullptr};
    piece_of_[static_cast<std::size_t>(plan.piece[p].op)] = static_cast<std::int32_t>(p);
  }
  ring_bytes_ = plan.ring_bytes;
  file_bytes_ = plan.reader.file_bytes;
  gather_threads_ = plan.gather_threads;
  reader_ = plan.reader;
  run_end_ = plan.pieces;
  paused_ = true;  // until the first step
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // they go to other threads
  for (; started_ < reader_.threads; ++started_)
    if (pthread_create(&threads_[static_cast<std::size_t>(started_)], nullptr, main_of, this) != 0) break;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return started_ == reader_.threads ? 0 : fail("the system refused to start %d threads that read weights", reader_.threads);
}

Stream::~Stream() {
  {
    const Locked locked(lock_);
    stop_ = true;
    pthread_cond_broadcast(&work_);
  }
  for (int i = 0; i < started_; ++i) pthread_join(threads_[static_cast<std::size_t>(i)], nullptr);
}

// Reading

void *Stream::main_of(void *stream) {
  static_cast<Stream *>(stream)->serve();
  return nullptr;
}

void Stream::serve() {
  pthread_mutex_lock(&lock_);
  while (!stop_) {
    Request request{};
    if (!take(request)) {
      pthread_cond_wait(&work_, &lock_);
      continue;
    }
    ++in_flight_;
    pthread_mutex_unlock(&lock_);
    const int failure = read(request.to, request.bytes, request.file);
    pthread_mutex_lock(&lock_);
    --in_flight_;
    Piece &piece = pieces_[static_cast<std::size_t>(request.piece)];
    if (failure != 0) {
      if (failure_ == 0) failure_ = failure;
    } else {
      (resident(piece) ? resident_read_ : bytes_read_) += request.bytes;
      if (--piece.pending == 0) piece.state = kReady;
    }
    if (failure != 0 || piece.pending == 0 || (paused_ && in_flight_ == 0)) pthread_cond_broadcast(&done_);
  }
  pthread_mutex_unlock(&lock_);
}

// 0, an errno, or RL_CUT_SHORT where the file ends too early. The last block of the file need not be whole.
int Stream::read(std::uint8_t *to, std::int64_t bytes, std::int64_t offset) {
  const std::int64_t wanted = std::min(bytes, file_bytes_ - offset);
  const bool direct = reader_.read == nullptr && reader_.forgets == 0;
  for (std::int64_t done = 0; done < wanted;) {
    const auto left = static_cast<std::size_t>(bytes - done);
    std::int64_t n = reader_.read != nullptr ? reader_.read(reader_.context, to + done, bytes - done, offset + done)
                                             : pread(reader_.file, to + done, left, offset + done);
    if (n < 0 && reader_.read == nullptr) n = -errno;
    if (n == -EINTR) continue;
    if (n < 0) return static_cast<int>(-n);
    if (n == 0) return RL_CUT_SHORT;
    if (done + n >= wanted) break;
    if (direct) n = n / kBlock * kBlock;  // those go on at a block
    if (n == 0) return RL_CUT_SHORT;
    done += n;
  }
  if (reader_.forgets != 0) posix_fadvise(reader_.file, offset, bytes, POSIX_FADV_DONTNEED);
  return 0;
}

bool Stream::take(Request &request) {
  if (paused_ || failure_ != 0 || (open_ < 0 && !open_next())) return false;
  const Piece &piece = pieces_[static_cast<std::size_t>(open_)];
  const rl_segment &segment = segments_[static_cast<std::size_t>(piece.plan.first_segment + open_segment_)];
  const std::int64_t bytes = std::min(reader_.request_bytes, segment.bytes - open_done_);
  request = Request{open_, piece.memory + segment.place + open_done_, segment.file + open_done_, bytes};
  open_done_ += bytes;
  if (open_done_ == segment.bytes) {
    open_done_ = 0;
    if (++open_segment_ == piece.plan.segments) open_ = -1;
  }
  return true;
}

// The next piece that is not in memory gets its place there, if there is room.
bool Stream::open_next() {
  const std::int32_t number = upcoming();
  if (number < 0) return false;
  Piece &piece = pieces_[static_cast<std::size_t>(number)];
  if (resident(piece)) {
    piece.memory = kept_.data() + piece.plan.resident;
  } else {
    Place found{number, 0, 0};
    if (piece.state != kEmpty || !place(piece.plan.bytes, found)) return false;
    queue_[(queue_first_ + queue_count_++) % queue_.size()] = found;
    piece.memory = ring_.data() + found.begin;
  }
  piece.state = kReading;
  piece.pending = 0;
  for (int s = piece.plan.first_segment; s < piece.plan.first_segment + piece.plan.segments; ++s)
    piece.pending += static_cast<std::int32_t>((segments_[static_cast<std::size_t>(s)].bytes + reader_.request_bytes - 1) /
                                               reader_.request_bytes);
  open_ = number;
  open_segment_ = 0;
  open_done_ = 0;
  next_ = number;
  step_next();
  return true;
}

void Stream::step_next() { next_ = next_ + 1 >= run_end_ ? 0 : next_ + 1; }

// The next piece that is to be read; -1: all of them are kept and there.
int Stream::upcoming() const {
  std::int32_t number = next_;
  for (std::size_t seen = 0; seen < pieces_.size(); ++seen) {
    const Piece &piece = pieces_[static_cast<std::size_t>(number)];
    if (!resident(piece) || piece.state == kEmpty) return number;
    number = number + 1 >= run_end_ ? 0 : number + 1;
  }
  return -1;
}

bool Stream::place(std::int64_t bytes, Place &place) const {
  std::int64_t begin = 0, end = ring_bytes_;
  if (queue_count_ > 0) {
    const Place &front = queue_[queue_first_], &back = queue_[(queue_first_ + queue_count_ - 1) % queue_.size()];
    begin = back.end;
    if (back.begin < front.begin) {
      end = front.begin;
    } else if (end - begin < bytes) {
      begin = 0;
      end = front.begin;
    }
  }
  if (end - begin < bytes) return false;
  place.begin = begin;
  place.end = begin + bytes;
  return true;
}

// The step

void Stream::begin(int first, int last) {
  const Locked locked(lock_);
  std::int32_t first_piece = -1;
  std::int32_t after = 0;
  for (std::size_t p = 0; p < pieces_.size(); ++p) {
    const int op = pieces_[p].plan.op;
    if (op >= first && op < last) {
      if (first_piece < 0) first_piece = static_cast<std::int32_t>(p);
      after = static_cast<std::int32_t>(p) + 1;
    }
  }
  gather_failure_.store(0);
  if (first_piece < 0) return;
  run_end_ = after;
  if (next_ >= run_end_) next_ = 0;
  if (failure_ != 0) restart(first_piece);
  if (paused_) {  // the first step
    next_ = first_piece;
    paused_ = false;
  }
  pthread_cond_broadcast(&work_);  // a run that goes further than those before may need what is not there yet
}

// Forgets what was read ahead, and begins anew at a piece.
void Stream::restart(int piece) {
  paused_ = true;
  while (in_flight_ > 0) pthread_cond_wait(&done_, &lock_);
  for (Piece &each : pieces_)
    if (!resident(each) || each.state == kReading) each.state = kEmpty;
  queue_count_ = 0;
  open_ = -1;
  next_ = piece;
  failure_ = 0;
  paused_ = false;
  pthread_cond_broadcast(&work_);
}

bool Stream::step_to(int op) {
  if (gather_failure_.load(std::memory_order_relaxed) != 0) return false;
  const std::int32_t number = piece_of_[static_cast<std::size_t>(op)];
  if (held_ < 0 && number < 0) return true;
  const Locked locked(lock_);
  let_go();
  if (number < 0) return true;
  Piece &piece = pieces_[static_cast<std::size_t>(number)];
  const bool another_first = !resident(piece) && queue_count_ > 0 && queue_[queue_first_].piece != number;
  if (failure_ == 0 && ((piece.state == kEmpty && !(open_ < 0 && upcoming() == number)) || another_first)) restart(number);
  if (piece.state != kReady) {
    const std::int64_t begun = nanoseconds();
    while (piece.state != kReady && failure_ == 0) pthread_cond_wait(&done_, &lock_);
    waited_ns_ += nanoseconds() - begun;
  }
  if (piece.state != kReady) return false;
  held_ = number;
  const rl_op &run = program_.ops()[static_cast<std::size_t>(op)];
  for (int b = run.first_band; b < run.first_band + run.bands; ++b) {
    const auto band = static_cast<std::size_t>(b);
    bands_[band].codes = piece.memory + placed_[band].codes;
    if (bands_[band].bits != 8) bands_[band].index = piece.memory + placed_[band].index;
  }
  return true;
}

void Stream::end() {
  const Locked locked(lock_);
  let_go();
}

void Stream::let_go() {
  if (held_ < 0) return;
  Piece &piece = pieces_[static_cast<std::size_t>(held_)];
  held_ = -1;
  if (resident(piece)) return;
  piece.state = kEmpty;
  queue_first_ = (queue_first_ + 1) % queue_.size();
  --queue_count_;
  pthread_cond_broadcast(&work_);
}

bool Stream::gather(std::size_t band, int strip, int thread, rl_band &gathered) {
  gathered = bands_[band];
  const rl_placed &placed = placed_[band];
  std::uint8_t *memory = staging_.data() + 2 * staging_stride_ * thread;
  const auto part = [&](std::int64_t at, std::int64_t bytes, std::uint8_t *to) -> const std::uint8_t * {
    const std::int64_t begin = at / kBlock * kBlock, size = round_up(at + bytes, kBlock) - begin;
    const int failure = read(to, size, begin);
    if (failure != 0) {
      gather_failure_.store(failure);
      return nullptr;
    }
    gathered_bytes_.fetch_add(size, std::memory_order_relaxed);
    return to + (at - begin);
  };
  const std::int64_t codes = strip_bytes(gathered), index = strip_index_bytes(gathered);
  gathered.codes = part(placed.codes + strip * codes, codes, memory);
  if (gathered.bits != 8) gathered.index = part(placed.index + strip * index, index, memory + staging_stride_);
  gathered.scale += std::int64_t{strip} * kStrip;
  return gathered.codes != nullptr && (gathered.bits == 8 || gathered.index != nullptr);
}

void Stream::stats(rl_stream_stats &stats) {
  const Locked locked(lock_);
  const int gathering = gather_failure_.load();
  stats = rl_stream_stats{bytes_read_, resident_read_, gathered_bytes_.load(), waited_ns_, gathering != 0 ? gathering : failure_, 0};
}

}  // namespace rl
