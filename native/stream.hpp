// Weights that do not fit into memory: pieces of them are read from the file while steps run.
//
// A piece is what one operation multiplies with. Some pieces stay in memory once they were read; the others pass through a
// ring, in the order of the operations and again from the first one after a step's last, so that threads read ahead while
// a step computes and between steps. Embeddings that are only gathered stay in the file: a row is read when a token asks.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>

#include "program.hpp"

namespace rl {

class Stream {
 public:
  // Empty with a sentence in last_error() when something does not fit together.
  static Shared<Stream> create(const Shared<Program> &program, const rl_stream_plan &plan);
  explicit Stream(const Shared<Program> &program) : owner_(program), program_(*owner_) {}
  Stream(const Stream &) = delete;
  Stream &operator=(const Stream &) = delete;
  ~Stream();

  // A step begins to run operations first .. last-1. What failed before is tried again.
  void begin(int first, int last);
  // The step comes to operation `op`: lets go of the piece before, and waits for this one's. False: it cannot be read.
  bool step_to(int op);
  // The step is over.
  void end();

  // A band whose weights are in memory, of the operation that the step has come to.
  const rl_band &band(std::size_t number) const { return bands_[number]; }
  // The strip of a band that is gathered, read into the memory of a thread: a band of this strip alone. False: it cannot
  // be read.
  bool gather(std::size_t band, int strip, int thread, rl_band &gathered);
  int gathering_threads() const { return gather_threads_; }

  const Program &program() const { return program_; }
  void stats(rl_stream_stats &stats);

 private:
  enum State : std::int32_t { kEmpty, kReading, kReady };
  struct Piece {
    rl_piece plan;
    State state;
    std::int32_t pending;  // requests that are not done
    std::uint8_t *memory;  // while it is not empty
  };
  struct Request {
    std::int32_t piece;
    std::uint8_t *to;
    std::int64_t file, bytes;
  };
  struct Place {  // of a piece in the ring
    std::int32_t piece;
    std::int64_t begin, end;
  };

  int check(const rl_stream_plan &plan) const;
  int check_piece(const rl_stream_plan &plan, int number, int &next_op) const;
  int check_bands(const rl_stream_plan &plan) const;
  int start(const rl_stream_plan &plan);

  static void *main_of(void *stream);
  void serve();
  int read(std::uint8_t *to, std::int64_t bytes, std::int64_t offset);

  // With the lock.
  bool take(Request &request);
  bool open_next();
  bool place(std::int64_t bytes, Place &place) const;
  int upcoming() const;
  void step_next();
  void restart(int piece);
  void let_go();

  bool resident(const Piece &piece) const { return piece.plan.resident >= 0; }

  const Shared<Program> owner_;
  const Program &program_;
  Array<rl_band> bands_;
  Array<Piece> pieces_;
  Array<rl_segment> segments_;
  Array<rl_placed> placed_;
  Array<std::int32_t> piece_of_;  // of each operation; -1: it has none
  Pages ring_, kept_, staging_;
  std::int64_t ring_bytes_ = 0, file_bytes_ = 0, staging_stride_ = 0;
  int gather_threads_ = 0;
  rl_reader reader_{};

  pthread_mutex_t lock_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t work_ = PTHREAD_COND_INITIALIZER;  // for the threads that read
  pthread_cond_t done_ = PTHREAD_COND_INITIALIZER;  // for the step
  Array<pthread_t> threads_;
  int started_ = 0;
  bool stop_ = false, paused_ = false;
  Array<Place> queue_;               // what is in the ring, the oldest first
  std::size_t queue_first_ = 0, queue_count_ = 0;
  std::int32_t next_ = 0;            // the piece to open next
  std::int32_t run_end_ = 0;         // after the last piece of the run
  std::int32_t open_ = -1;           // the piece whose requests are given out; -1: none
  std::int32_t open_segment_ = 0;
  std::int64_t open_done_ = 0;       // bytes of this segment that were given out
  int in_flight_ = 0;
  int failure_ = 0;                  // an errno, or kCutShort
  std::int32_t held_ = -1;           // the piece that the step works with
  std::int64_t bytes_read_ = 0, waited_ns_ = 0, resident_read_ = 0;
  std::atomic<std::int64_t> gathered_bytes_{0};
  std::atomic<int> gather_failure_{0};
};

}  // namespace rl
