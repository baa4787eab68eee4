# Simulated data of levels.R: Rscript tests/oracle/levels_data.R (from the root of the project).
#
# Writes tests/oracle/data/{trial,regions,ratings,schools}.csv. Responses whose name ends in 0 lack
# some of the effects, so that estimates lie on the boundary.

suppressWarnings(RNGversion("4.0.0"))
save <- function(data, name) {
  number <- sapply(data, is.double)
  data[number] <- lapply(data[number], round, 4)
  write.csv(data, file.path("tests/oracle/data", paste0(name, ".csv")), row.names = FALSE,
            quote = FALSE)
}
effects <- function(codes, sd) rnorm(max(codes), sd = sd)[codes]
slopes <- function(codes, D) matrix(rnorm(2 * max(codes)), ncol = 2)[codes, ] %*% chol(D)
coded <- function(prefix, codes) sprintf("%s%02d", prefix, codes)

# 14 centres, 3 to 9 patients each (their numbers start anew in each), 2 to 6 of 6 visits
set.seed(5)
patients <- sample(3:9, 14, replace = TRUE)
center <- rep(1:14, patients); patient <- sequence(patients)
visits <- lapply(seq_along(center), function(i) sort(sample(1:6, sample(2:6, 1))))
unit <- rep(seq_along(center), lengths(visits)); visit <- unlist(visits)
t <- visit - 1 + round(runif(length(visit), -0.3, 0.3), 2)
arm <- rbinom(length(center), 1, 0.5)[unit]
b1 <- slopes(center[unit], matrix(c(1.5, -0.2, -0.2, 0.15), 2))
b2 <- slopes(unit, matrix(c(2, 0.3, 0.3, 0.3), 2))
mean <- 10 + 0.8 * t - 0.4 * arm * t
noise <- rnorm(length(t))
trial <- data.frame(
  y = mean + b1[, 1] + b1[, 2] * t + b2[, 1] + b2[, 2] * t + noise,
  y0 = mean + b2[, 1] + b2[, 2] * t + noise,
  t = t, visit = visit, arm = c("control", "treated")[arm + 1],
  center = coded("C", center[unit]), patient = coded("P", patient[unit]),
  w = c(1, 2, 4)[visit %% 3 + 1], o = 2 * t - 0.1 * t^2)
series <- function(i) as.numeric(stats::filter(rnorm(6, sd = sqrt(0.75)), 0.5, "recursive"))
ar <- sapply(seq_along(center), series)
trial$y_ar <- mean + b1[, 1] + b2[, 1] + 1.5 * ar[cbind(visit, unit)]
save(trial, "trial")

# 6 regions, 2 to 5 centres each, 2 to 6 patients each, 3 rows each
set.seed(10)
centers <- sample(2:5, 6, replace = TRUE)
region <- rep(1:6, centers); center <- sequence(centers)
patients <- sample(2:6, length(region), replace = TRUE)
of_patient <- rep(seq_along(region), patients); patient <- sequence(patients)
unit <- rep(seq_along(of_patient), each = 3); place <- of_patient[unit]
x <- rnorm(length(unit))
mean <- 2 + 0.5 * x; noise <- rnorm(length(unit), sd = 0.8)
inner <- mean + effects(unit, 1) + noise
save(data.frame(
  y = inner + effects(region[place], 1.2) + effects(place, 0.9), y0 = inner, y00 = mean + noise,
  x = x,
  region = coded("R", region[place]), center = coded("C", center[place]),
  patient = coded("P", patient[unit])), "regions")

# 45 users, 20 items, 400 of 900 pairs, some of them twice
set.seed(3)
pairs <- expand.grid(user = 1:45, item = 1:20)[sample(900, 340), ]
pairs <- rbind(pairs, pairs[sample(340, 80), ])
pairs <- pairs[order(runif(nrow(pairs))), ]
x <- rnorm(nrow(pairs)); n <- nrow(pairs)
b <- slopes(pairs$user, matrix(c(1, 0.3, 0.3, 0.4), 2))
b2 <- slopes(pairs$item, matrix(c(0.6, 0, 0, 0.2), 2))
cell <- as.integer(factor(paste(pairs$user, pairs$item)))
base <- 3 - 0.5 * x + b[, 1] + b[, 2] * x
noise <- rnorm(n)
save(data.frame(
  y = base + b2[, 1] + b2[, 2] * x + effects(cell, 0.7) + noise, y0 = base + noise, x = x,
  user = coded("U", pairs$user), item = coded("I", pairs$item),
  w = sample(c(0.5, 1, 3), n, replace = TRUE), o = rnorm(n)), "ratings")

# 10 schools, 2 to 5 classes each, 5 to 9 pupils each, 12 raters who see pupils of any school
set.seed(8)
classes <- sample(2:5, 10, replace = TRUE)
school <- rep(1:10, classes); class <- sequence(classes)
pupils <- sample(5:9, length(school), replace = TRUE)
of_class <- rep(seq_along(school), pupils); n <- length(of_class)
rater <- sample(12, n, replace = TRUE); x <- rnorm(n)
inner <- 1 + 0.7 * x + effects(rater, 0.6) + rnorm(n)
save(data.frame(
  y = inner + effects(school[of_class], 0.8) + effects(of_class, 0.9),
  y0 = inner + effects(school[of_class], 0.8), x = x,
  school = coded("S", school[of_class]), class = coded("K", class[of_class]),
  rater = coded("R", rater)), "schools")
