# One measurement of lme4: reads the columns from .npy files, fits, writes the figures as JSON.
# Arguments: folder, rows, formula, REML, repeats, seconds for all fits, seconds up to which a first
# fit is repeated at least once, names of the covariates with commas between, output file.
suppressMessages(library(lme4))
args <- commandArgs(trailingOnly = TRUE)
rows <- as.integer(args[2]); repeats <- as.integer(args[5]); seconds <- as.numeric(args[6])
patience <- as.numeric(args[7])

# An .npy file is a 10-byte preamble, a header of the length told in its last two bytes, the data.
read_npy <- function(name, what, count) {
  con <- file(file.path(args[1], paste0(name, ".npy")), "rb")
  on.exit(close(con))
  preamble <- as.integer(readBin(con, "raw", 10))
  header <- rawToChar(readBin(con, "raw", preamble[9] + 256L * preamble[10]))
  size <- if (what == "integer" || grepl("<f4", header, fixed = TRUE)) 4L else 8L
  readBin(con, what, count, size = size, endian = "little")
}
names <- c("y", strsplit(args[8], ",")[[1]])
data <- as.data.frame(setNames(lapply(names, read_npy, "double", rows), names))
# Ids are 64-bit integers below 2^31: their low halves.
data$id <- read_npy("id", "integer", 2 * rows)[c(TRUE, FALSE)]

memory <- function(field) {
  status <- tryCatch(readLines("/proc/self/status"), error = function(e) character())
  line <- grep(paste0("^", field, ":"), status, value = TRUE)
  if (length(line)) 1024 * as.numeric(gsub("[^0-9]", "", line)) else NA
}
fit <- function() lmer(as.formula(args[3]), data, REML = args[4] == "TRUE",
                       control = lmerControl(calc.derivs = FALSE,
                                             check.nobs.vs.nRE = "ignore"))
timed <- function() {
  start <- proc.time()[["elapsed"]]
  model <<- fit()
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

cov_re <- as.matrix(VarCorr(model)$id)
theta <- c(cov_re[lower.tri(cov_re, diag = TRUE)], sigma(model)^2)
number <- function(x) ifelse(is.na(x), "null", formatC(x, digits = 17, format = "g"))
several <- function(x) paste0("[", paste(number(x), collapse = ", "), "]")
cat(sprintf(paste('{"cold": %s, "warm": %s, "peak": %s, "loglik": %s,',
                  '"theta": %s, "after": {}}\n'),
            number(cold), several(warm), number(peak), number(loglik),
            several(theta)),
    file = args[9])
