# One measurement of a library of R: reads the columns from .npy files, fits, writes the figures as
# JSON. Arguments: folder, rows, package, call that fits `data`, what theta is of the fit `model`,
# repeats, seconds for all fits, seconds up to which a first fit is repeated at least once, names of
# the columns with commas between, then of the columns of labels, columns that are categories, output
# file.
args <- commandArgs(trailingOnly = TRUE)
suppressMessages(library(args[3], character.only = TRUE))
rows <- as.integer(args[2]); call <- str2lang(args[4]); repeats <- as.integer(args[6])
seconds <- as.numeric(args[7]); patience <- as.numeric(args[8])

# An .npy file is a 10-byte preamble, a header of the length told in its last two bytes, the data.
read_npy <- function(name, what, count) {
  con <- file(file.path(args[1], paste0(name, ".npy")), "rb")
  on.exit(close(con))
  preamble <- as.integer(readBin(con, "raw", 10))
  header <- rawToChar(readBin(con, "raw", preamble[9] + 256L * preamble[10]))
  size <- if (what == "integer" || grepl("<f4", header, fixed = TRUE)) 4L else 8L
  readBin(con, what, count, size = size, endian = "little")
}
split <- function(names) strsplit(names, ",")[[1]]
names <- split(args[9])
# Labels are 64-bit integers below 2^31: their low halves.
read_labels <- function(name) read_npy(name, "integer", 2 * rows)[c(TRUE, FALSE)]
data <- as.data.frame(setNames(lapply(names, read_npy, "double", rows), names))
for (name in split(args[10])) data[[name]] <- read_labels(name)
for (name in split(args[11])) data[[name]] <- factor(data[[name]])

memory <- function(field) {
  status <- tryCatch(readLines("/proc/self/status"), error = function(e) character())
  line <- grep(paste0("^", field, ":"), status, value = TRUE)
  if (length(line)) 1024 * as.numeric(gsub("[^0-9]", "", line)) else NA
}
timed <- function() {
  start <- proc.time()[["elapsed"]]
  model <<- eval(call)
  loglik <<- as.numeric(logLik(model))
  proc.time()[["elapsed"]] - start
}

invisible(gc())
baseline <- memory("VmRSS")
try(cat("5", file = "/proc/self/clear_refs"), silent = TRUE)
cold <- timed()
peak <- memory("VmHWM") - baseline
warm <- c()
while (length(warm) < repeats &&
       (cold + sum(warm) < seconds || (length(warm) == 0 && cold < patience))) warm <- c(warm, timed())

theta <- as.numeric(eval(str2lang(args[5])))
number <- function(x) ifelse(is.finite(x), formatC(x, digits = 17, format = "g"), "null")
several <- function(x) paste0("[", paste(number(x), collapse = ", "), "]")
cat(sprintf(paste('{"cold": %s, "warm": %s, "peak": %s, "loglik": %s,',
                  '"theta": %s, "after": {}}\n'),
            number(cold), several(warm), number(peak), number(loglik),
            several(theta)),
    file = args[12])
