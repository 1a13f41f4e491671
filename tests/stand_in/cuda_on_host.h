// CUDA's words for a C++ compiler: a block's threads are fibers that run one after the other between barriers.
#include <cfloat>
#include <climits>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __restrict__

struct float2 { float x, y; };
struct double2 { double x, y; };
struct dim3 { unsigned int x, y, z; };
static inline float2 make_float2(float x, float y) { float2 v = {x, y}; return v; }

// not static: the compiler must expect them to change at a barrier
dim3 blockIdx, blockDim, gridDim, threadIdx;

static inline unsigned int __float_as_uint(float v) { unsigned int u; std::memcpy(&u, &v, 4); return u; }
static inline float __uint_as_float(unsigned int u) { float v; std::memcpy(&v, &u, 4); return v; }
static inline long long __double2ll_rn(double v) { return std::llrint(v); }
template <class T> static inline T atomicAdd(T* at, T v) { T old = *at; *at += v; return old; }

namespace host {
enum State { FRESH, RUNNING, WAITING, DONE };
struct Fiber { ucontext_t context; jmp_buf at; std::vector<char> stack; bool begun; };
struct Thread { State state; int fiber; int barrier; };

static std::vector<Fiber*> fibers;
static std::vector<int> idle;
static std::vector<Thread> threads;
static std::vector<int> order;
static jmp_buf scheduler;
static int current_fiber, current_thread, cursor;
static void (*body)(void**);
static void** arguments;

static void set_thread(int t) { current_thread = t; threadIdx.x = (unsigned)t; threadIdx.y = threadIdx.z = 0; }

// A fiber runs fresh threads one after the other for as long as none of them waits.
static void fiber_main()
{
    for (;;) {
        body(arguments);
        threads[current_thread].state = DONE;
        while (cursor < (int)order.size() && threads[order[cursor]].state != FRESH) cursor++;
        if (cursor < (int)order.size()) {
            set_thread(order[cursor]);
            threads[current_thread].state = RUNNING;
            threads[current_thread].fiber = current_fiber;
            continue;
        }
        idle.push_back(current_fiber);
        if (!_setjmp(fibers[current_fiber]->at)) _longjmp(scheduler, 1);
    }
}

__attribute__((noinline)) void barrier(int line)
{
    asm volatile("" ::: "memory");
    threads[current_thread].state = WAITING;
    threads[current_thread].barrier = line;
    if (!_setjmp(fibers[current_fiber]->at)) _longjmp(scheduler, 1);
    asm volatile("" ::: "memory");
}

__attribute__((noinline)) static void resume(int fiber)
{
    current_fiber = fiber;
    if (_setjmp(scheduler)) return;
    Fiber* f = fibers[fiber];
    if (f->begun) _longjmp(f->at, 1);
    f->begun = true;
    setcontext(&f->context);
}

static int take_fiber()
{
    if (idle.empty()) {
        Fiber* f = new Fiber;
        f->stack.resize(65536);
        f->begun = false;
        getcontext(&f->context);
        f->context.uc_stack.ss_sp = f->stack.data();
        f->context.uc_stack.ss_size = f->stack.size();
        f->context.uc_link = nullptr;
        makecontext(&f->context, fiber_main, 0);
        fibers.push_back(f);
        return (int)fibers.size() - 1;
    }
    const int f = idle.back();
    idle.pop_back();
    return f;
}

// 0, or 1 where some threads of a block wait at a barrier that others have left behind or never reach
static int run_block(int n, bool backwards)
{
    threads.assign(n, Thread{FRESH, -1, 0});
    order.resize(n);
    for (int t = 0; t < n; t++) order[t] = backwards ? n - 1 - t : t;
    for (bool first = true;; first = false) {
        for (int k = 0; k < n; k++) {
            const int t = order[k];
            Thread& thread = threads[t];
            if (thread.state == WAITING && !first) {
                thread.state = RUNNING;
                cursor = n;
                set_thread(t);
                resume(thread.fiber);
            } else if (thread.state == FRESH) {
                thread.state = RUNNING;
                thread.fiber = take_fiber();
                cursor = k + 1;
                set_thread(t);
                resume(thread.fiber);
            }
        }
        int waiting = 0;
        for (const Thread& thread : threads) waiting += thread.state == WAITING;
        if (waiting == 0) return 0;
        if (waiting < n) return 1;
        for (const Thread& thread : threads)
            if (thread.barrier != threads[0].barrier) return 1;
    }
}

static int run(void (*kernel)(void**), void** values, const unsigned* grid, unsigned block, int backwards)
{
    body = kernel;
    arguments = values;
    gridDim = dim3{grid[0], grid[1], grid[2]};
    blockDim = dim3{block, 1, 1};
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                blockIdx = dim3{x, y, z};
                if (run_block((int)block, backwards)) {
                    // the fibers that still wait are not used again
                    idle.clear();
                    fibers.clear();
                    return 1;
                }
            }
    return 0;
}
}  // namespace host

#define __syncthreads() host::barrier(__LINE__)
