// Which columns of X are columns of Z, found by comparing staged rows bit by bit: a matter of the data,
// never of names.
#pragma once

#include <algorithm>
#include <vector>

#include "lmmfast/rows/staging.hpp"

namespace lmmfast::detail {

class SameColumns {
  public:
    // Columns of [Z X y], q of them Z's.
    SameColumns(int q, int n_columns) : q_(q), now_(static_cast<std::size_t>(n_columns), -1) {}

    // (q + p1,): the column of Z that each column of X has been in the rows that `find` saw last, and in all
    // rows wherever it still can be; -1: none.
    const std::vector<int>& now() const { return now_; }

    // Compares the first n staged rows; says whether anything has changed.
    bool find(const StagedRows& staged, int n) {
        bool changed = false;
        for (int j = q_; j < n_columns() - 1; ++j) {
            const int before = now_[j] >= 0 || always_.empty() ? now_[j] : always_[j];
            const bool still = before >= 0 && staged.same(j, before, n);
            const int z = still ? before : first_same(staged, j, 0, n);
            changed |= z != now_[j];
            now_[j] = z;
        }
        note(staged, 0, n);
        return changed;
    }
    // The same for rows of which all columns are reduced: it only tells what is so in all rows.
    void note(const StagedRows& staged, int begin, int n) {
        const bool first = always_.empty();
        if (first) always_.assign(now_.size(), -1);
        for (int j = q_; j < n_columns() - 1; ++j) {
            int& z = always_[j];
            if (first)
                z = first_same(staged, j, begin, n);
            else if (z >= 0 && !staged.same(j, z, n, begin))
                z = -1;
        }
    }

    // (q,): the column of X that each column of Z was in all rows; empty where one was none.
    std::vector<int> z_in_x() const {
        std::vector<int> found;
        for (int k = 0; k < q_; ++k) {
            const auto x = std::find(always_.begin(), always_.end(), k);
            if (x == always_.end()) return {};
            found.push_back(static_cast<int>(x - always_.begin()) - q_);
        }
        return found;
    }

  private:
    int n_columns() const { return static_cast<int>(now_.size()); }
    int first_same(const StagedRows& staged, int j, int begin, int n) const {
        for (int k = 0; k < q_; ++k)
            if (staged.same(j, k, n, begin)) return k;
        return -1;
    }

    int q_;
    std::vector<int> now_;
    std::vector<int> always_;  // empty: no rows yet
};

}  // namespace lmmfast::detail
