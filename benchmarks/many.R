# Many fits by lme4: sleepstudy again and again, or refit() for one response after another.
# Arguments: workload, folder, fits, repeats, seconds for all repeats, output file.
suppressMessages(library(lme4))
args <- commandArgs(trailingOnly = TRUE)
fits <- as.integer(args[3]); repeats <- as.integer(args[4]); seconds <- as.numeric(args[5])
quiet <- lmerControl(calc.derivs = FALSE)

# An .npy file is a 10-byte preamble, a header of the length told in its last two bytes, the data.
read_npy <- function(name, what, count) {
  con <- file(file.path(args[2], paste0(name, ".npy")), "rb")
  on.exit(close(con))
  preamble <- as.integer(readBin(con, "raw", 10))
  readBin(con, "raw", preamble[9] + 256L * preamble[10])
  readBin(con, what, count, endian = "little")
}

if (args[1] == "small") {
  data(sleepstudy)
  fit_all <- function() sapply(seq_len(fits), function(k)
    logLik(lmer(Reaction ~ Days + (Days | Subject), sleepstudy, control = quiet)))
} else {
  t <- read_npy("t", "double", 1e6)
  n <- length(t)
  data <- data.frame(t = t, id = read_npy("id", "integer", 2 * n)[c(TRUE, FALSE)])
  Y <- read_npy("Y", "double", 1e8)
  Y <- matrix(Y, nrow = n, byrow = TRUE)
  data$y <- Y[, 1]
  fit_all <- function() {
    first <- suppressMessages(lmer(y ~ t + (t | id), data, control = quiet))
    sapply(seq_len(fits), function(k) logLik(suppressMessages(refit(first, Y[, k]))))
  }
}
timed <- function() {
  start <- proc.time()[["elapsed"]]
  loglik <<- fit_all()
  proc.time()[["elapsed"]] - start
}

cold <- timed()
warm <- c()
while (length(warm) < repeats && cold + sum(warm) < seconds) warm <- c(warm, timed())
number <- function(x) formatC(x, digits = 17, format = "g")
cat(sprintf('{"cold": %s, "warm": [%s], "loglik": %s}\n', number(cold),
            paste(number(warm), collapse = ", "), number(loglik[1])), file = args[6])
