# Expected numbers for several grouping factors, nested and crossed.
#
#   Rscript tests/oracle/levels.R      (from the root of the project)
#
# needs R with nlme, lme4 and jsonlite, reads tests/oracle/data/*.csv (simulated by levels_data.R)
# and writes tests/oracle/expected/levels.json. The tests themselves do not need R.
#
# Every model is fitted by packages (`peers`), then the optimum is polished: scoring steps on a dense
# evaluation of the log-likelihood (V of all rows formed, no tricks) down to a score of ~1e-10
# standard errors. `checked_to` is the largest relative disagreement between the log-likelihood of a
# peer and the polished one.

suppressPackageStartupMessages({library(nlme); library(lme4)})
invisible(Sys.setlocale("LC_COLLATE", "C"))  # levels in the order of the bytes, as in Python

read <- function(name) read.csv(file.path("tests/oracle/data", paste0(name, ".csv")),
                                stringsAsFactors = TRUE)
trial <- read("trial"); regions <- read("regions")
ratings <- read("ratings"); schools <- read("schools")
data_of <- function(name) get(name, envir = globalenv())

# ---- parameters of a term's covariance matrix, given its rank -----------------------------------

unit <- function(q, j, k = j) { E <- matrix(0, q, q); E[j, k] <- E[k, j] <- 1; E }

vech <- function(q) unlist(lapply(1:q, function(k) lapply(k:q, function(j) unit(q, j, k))),
                           recursive = FALSE)

covariance <- function(D, residual_variance) {
  q <- nrow(D); values <- eigen(D, only.values = TRUE)$values
  rank <- sum(values > 1e-7 * max(values, residual_variance))
  if (rank == 0) return(list(start = numeric(), D = function(par) 0 * D, dD = function(par) list()))
  if (rank == q) {
    basis <- vech(q)
    return(list(start = D[lower.tri(D, diag = TRUE)], dD = function(par) basis,
                D = function(par) Reduce(`+`, Map(`*`, par, basis))))
  }
  stopifnot(rank == 1)  # D = l l'
  e <- eigen(D)
  list(start = e$vectors[, 1] * sqrt(e$values[1]), D = tcrossprod,
       dD = function(l) lapply(seq_along(l), function(k) {
         E <- outer(l, seq_along(l) == k); E + t(E) }))
}

# ---- correlation of the residuals within a unit -------------------------------------------------

independent <- list(start = numeric(), C = function(par, lag) 0 + (lag == 0),
                    dC = function(par, lag) list())
power <- list(C = function(rho, lag) ifelse(is.finite(lag), rho^lag, 0),  # AR(1), continuous AR(1)
              dC = function(rho, lag) list(ifelse(is.finite(lag), lag * rho^(lag - 1), 0)))

# ---- dense evaluation ---------------------------------------------------------------------------

model_of <- function(spec, data) {
  ones <- rep(1, nrow(data))
  m <- list(y = data[[spec$y]] - (if (is.null(spec$offset)) 0 else data[[spec$offset]]),
            X = model.matrix(spec$fixed, data),
            w = if (is.null(spec$weights)) ones else data[[spec$weights]])
  m$terms <- lapply(spec$terms, function(term) {
    columns <- strsplit(term$group, ":")[[1]]
    list(group = term$group, Z = model.matrix(term$z, data),
         level = factor(do.call(paste, c(data[columns], sep = ":"))))
  })
  m$lag <- matrix(Inf, nrow(data), nrow(data)); diag(m$lag) <- 0
  if (!is.null(spec$time)) {
    id <- do.call(paste, data[spec$unit])
    lag <- abs(outer(data[[spec$time]], data[[spec$time]], `-`))
    m$lag[outer(id, id, `==`)] <- lag[outer(id, id, `==`)]
  }
  m
}

split_parameters <- function(s, theta) {
  sizes <- c(sapply(s$covariances, function(f) length(f$start)), length(s$residual$start))
  ends <- cumsum(sizes)
  part <- lapply(seq_along(sizes), function(k) theta[seq_len(sizes[k]) + ends[k] - sizes[k]])
  list(D = part[-length(part)], kappa = part[[length(part)]], sigma2 = theta[length(theta)])
}

within_levels <- function(term, E) tcrossprod(term$Z %*% E, term$Z) * outer(term$level, term$level, `==`)

evaluate <- function(m, s, theta, reml) {
  at <- split_parameters(s, theta); p <- ncol(m$X); n <- length(m$y); K <- length(theta)
  D <- Map(function(f, par) f$D(par), s$covariances, at$D)
  scale <- 1 / sqrt(outer(m$w, m$w))
  C <- scale * s$residual$C(at$kappa, m$lag)
  V <- Reduce(`+`, Map(within_levels, m$terms, D)) + at$sigma2 * C
  U <- chol(V); Vi <- chol2inv(U)
  S <- crossprod(m$X, Vi %*% m$X); vcov <- solve(S)
  beta <- drop(vcov %*% crossprod(m$X, Vi %*% m$y)); v <- drop(Vi %*% (m$y - m$X %*% beta))
  dV <- c(unlist(Map(function(term, f, par) lapply(f$dD(par), within_levels, term = term),
                     m$terms, s$covariances, at$D), recursive = FALSE),
          lapply(s$residual$dC(at$kappa, m$lag), function(dC) at$sigma2 * scale * dC), list(C))
  P <- Vi - Vi %*% m$X %*% vcov %*% crossprod(m$X, Vi)
  weight <- if (reml) P else Vi
  A <- lapply(dV, function(E) weight %*% E)
  score <- sapply(1:K, function(k) sum(v * (dV[[k]] %*% v)) - sum(diag(A[[k]]))) / 2
  info <- outer(1:K, 1:K, Vectorize(function(k, l) sum(A[[k]] * t(A[[l]])) / 2))
  loglik <- -(n * log(2 * pi) + 2 * sum(log(diag(U))) + sum(v * (m$y - m$X %*% beta))) / 2
  if (reml) loglik <- loglik + (p * log(2 * pi) - as.numeric(determinant(S)$modulus)) / 2
  list(loglik = loglik, score = score, info = info, beta = beta, vcov = vcov, D = D, Vi = Vi,
       sigma2 = at$sigma2, kappa = at$kappa, v = v, theta = theta)
}

# Observed information by differences of the score: the expected one of D = l l' vanishes with l.
observed <- function(m, s, theta, reml) {
  J <- sapply(seq_along(theta), function(k) {
    h <- 1e-5 * max(abs(theta[k]), 0.1) * (seq_along(theta) == k)
    (evaluate(m, s, theta + h, reml)$score - evaluate(m, s, theta - h, reml)$score) / (2 * max(h))
  })
  -(J + t(J)) / 2
}

polish <- function(m, s, theta, reml) {
  at <- evaluate(m, s, theta, reml)
  norm <- function(at) sqrt(sum(at$score * solve(at$info, at$score)))
  low_rank <- any(sapply(s$covariances, function(f) identical(f$D, tcrossprod)))
  for (iteration in 1:50) {
    if (norm(at) < 1e-11) break
    step <- solve(if (low_rank) observed(m, s, at$theta, reml) else at$info, at$score)
    repeat {  # the log-likelihood never falls by more than rounding
      trial <- tryCatch(evaluate(m, s, at$theta + step, reml), error = function(e) NULL)
      if (!is.null(trial) && trial$loglik > at$loglik - 1e-11 * abs(at$loglik)) break
      step <- step / 2
    }
    at <- trial
  }
  at$decrement <- norm(at)  # score in standard errors
  at
}

# A variance of zero, or a direction without variance, is right if the score of it is not positive.
multiplier <- function(m, at, reml) {
  P <- at$Vi
  if (reml) P <- P - P %*% m$X %*% at$vcov %*% crossprod(m$X, P)
  max(mapply(function(term, D) {
    q <- ncol(D); S <- matrix(0, q, q)
    for (j in 1:q) for (k in 1:q) {
      E <- tcrossprod(term$Z[, j], term$Z[, k]) * outer(term$level, term$level, `==`)
      S[j, k] <- sum(at$v * (E %*% at$v)) - sum(P * E)
    }
    e <- eigen(D); null <- e$vectors[, e$values < 1e-10 * max(e$values, at$sigma2), drop = FALSE]
    if (ncol(null) == 0) return(-Inf)
    max(eigen(crossprod(null, S %*% null), symmetric = TRUE, only.values = TRUE)$values)
  }, m$terms, at$D))
}

# ---- the peers ----------------------------------------------------------------------------------

lme_tight <- lmeControl(opt = "nlminb", maxIter = 500, msMaxIter = 1000, tolerance = 1e-12,
                        msTol = 1e-13, niterEM = 200, returnObject = TRUE)
lmer_tight <- lmerControl(optimizer = "bobyqa", calc.derivs = FALSE,
                          optCtrl = list(rhobeg = 2e-2, rhoend = 1e-10, maxfun = 1e5),
                          check.conv.singular = "ignore", check.nobs.vs.nRE = "ignore")

# D of each term of `spec` in a peer's fit (lme's levels and lmer's are in orders of their own)
start_of <- function(fit, m) {
  columns <- function(key) paste(sort(strsplit(gsub("[()]", "", key), ":|/")[[1]]), collapse = " ")
  if (inherits(fit, "lme")) {
    blocks <- lapply(as.matrix(fit$modelStruct$reStruct), function(D) fit$sigma^2 * D)
    groups <- names(fit$groups)
    keys <- sapply(names(blocks), function(g) {
      paste(groups[seq_len(match(g, groups))], collapse = ":") })
  } else {
    blocks <- lapply(lme4::VarCorr(fit), function(V) matrix(c(V), nrow(V), dimnames = dimnames(V)))
    keys <- names(getME(fit, "cnms"))
  }
  lapply(m$terms, function(term) {
    found <- Filter(function(k) columns(keys[k]) == columns(term$group) &&
                      identical(rownames(blocks[[k]]), colnames(term$Z)), seq_along(blocks))
    stopifnot(length(found) == 1)
    unname(blocks[[found]])
  })
}

term <- function(group, z) list(group = group, z = z)

# One case: the formula for lmmfast, the pieces of the model for the dense evaluation, and calls of
# peers with `REML` (lme4) or `method` (nlme) left free. The first peer gives the start values.
case <- function(dataset, formula, fixed, terms, ..., y = "y", weights = NULL, offset = NULL,
                 residual = NULL, time = NULL, unit = NULL) {
  list(dataset = dataset, formula = formula, fixed = fixed, terms = terms, y = y, weights = weights,
       offset = offset, residual = residual, time = time, unit = unit,
       peers = as.list(substitute(list(...)))[-1])
}
nested <- c("center", "patient")
cases <- list(
  slopes_at_both_levels = case(
    "trial", "y ~ t * arm + (1 + t | center/patient)", ~ t * arm,
    list(term("center", ~ 1 + t), term("center:patient", ~ 1 + t)),
    lmer(y ~ t * arm + (1 + t | center/patient), trial, REML = REML, control = lmer_tight),
    lme(y ~ t * arm, trial, ~ 1 + t | center/patient, method = method, control = lme_tight)),
  intercept_then_slopes = case(
    "trial", "y ~ t * arm + (1 | center) + (1 + t | center:patient)", ~ t * arm,
    list(term("center", ~ 1), term("center:patient", ~ 1 + t)),
    lmer(y ~ t * arm + (1 | center) + (1 + t | center:patient), trial, REML = REML,
         control = lmer_tight),
    lme(y ~ t * arm, trial, list(center = ~ 1, patient = ~ t), method = method,
        control = lme_tight)),
  slope_then_intercept = case(
    "trial", "y ~ t * arm + (0 + t | center) + (1 | center:patient)", ~ t * arm,
    list(term("center", ~ 0 + t), term("center:patient", ~ 1)),
    lmer(y ~ t * arm + (0 + t | center) + (1 | center:patient), trial, REML = REML,
         control = lmer_tight),
    lme(y ~ t * arm, trial, list(center = ~ 0 + t, patient = ~ 1), method = method,
        control = lme_tight)),
  uncorrelated_slopes = case(
    "trial", "y ~ t * arm + (1 + t || center) + (1 + t || center:patient)", ~ t * arm,
    list(term("center", ~ 1), term("center", ~ 0 + t), term("center:patient", ~ 1),
         term("center:patient", ~ 0 + t)),
    lmer(y ~ t * arm + (1 + t || center) + (1 + t || center:patient), trial, REML = REML,
         control = lmer_tight)),
  weights = case(
    "trial", "y ~ t * arm + (1 | center) + (1 + t | center:patient)", ~ t * arm,
    list(term("center", ~ 1), term("center:patient", ~ 1 + t)), weights = "w",
    lmer(y ~ t * arm + (1 | center) + (1 + t | center:patient), trial, weights = w, REML = REML,
         control = lmer_tight),
    lme(y ~ t * arm, trial, list(center = ~ 1, patient = ~ t), weights = varFixed(~ 1 / w),
        method = method, control = lme_tight)),
  offset = case(
    "trial", "y ~ t * arm + (1 | center) + (1 + t | center:patient)", ~ t * arm,
    list(term("center", ~ 1), term("center:patient", ~ 1 + t)), offset = "o",
    lmer(y ~ t * arm + (1 | center) + (1 + t | center:patient), trial, offset = o, REML = REML,
         control = lmer_tight)),
  boundary_center = case(
    "trial", "y0 ~ t * arm + (1 | center) + (1 + t | center:patient)", ~ t * arm, y = "y0",
    list(term("center", ~ 1), term("center:patient", ~ 1 + t)),
    lmer(y0 ~ t * arm + (1 | center) + (1 + t | center:patient), trial, REML = REML,
         control = lmer_tight)),
  boundary_correlation = case(
    "trial", "y0 ~ t * arm + (1 + t | center/patient)", ~ t * arm, y = "y0",
    list(term("center", ~ 1 + t), term("center:patient", ~ 1 + t)),
    lmer(y0 ~ t * arm + (1 + t | center/patient), trial, REML = REML, control = lmer_tight)),
  ar1_within_patients = case(
    "trial", "y_ar ~ t * arm + (1 | center) + (1 | center:patient)", ~ t * arm, y = "y_ar",
    list(term("center", ~ 1), term("center:patient", ~ 1)), residual = "AR1('visit')",
    time = "visit", unit = nested,
    lme(y_ar ~ t * arm, trial, ~ 1 | center/patient, corAR1(form = ~ visit | center/patient),
        method = method, control = lme_tight)),
  car1_within_patients = case(
    "trial", "y_ar ~ t * arm + (1 | center) + (1 | center:patient)", ~ t * arm, y = "y_ar",
    list(term("center", ~ 1), term("center:patient", ~ 1)), residual = "OU('t')",
    time = "t", unit = nested,
    lme(y_ar ~ t * arm, trial, ~ 1 | center/patient, corCAR1(form = ~ t | center/patient),
        method = method, control = lme_tight)),
  slopes_and_ar1 = case(
    "trial", "y ~ t * arm + (1 + t | center) + (1 + t | center:patient)", ~ t * arm,
    list(term("center", ~ 1 + t), term("center:patient", ~ 1 + t)), residual = "AR1('visit')",
    time = "visit", unit = nested,
    lme(y ~ t * arm, trial, ~ 1 + t | center/patient, corAR1(form = ~ visit | center/patient),
        method = method, control = lme_tight)),
  three_levels = case(
    "regions", "y ~ x + (1 | region/center/patient)", ~ x,
    list(term("region", ~ 1), term("region:center", ~ 1), term("region:center:patient", ~ 1)),
    lmer(y ~ x + (1 | region/center/patient), regions, REML = REML, control = lmer_tight),
    lme(y ~ x, regions, ~ 1 | region/center/patient, method = method, control = lme_tight)),
  boundary_region = case(
    "regions", "y0 ~ x + (1 | region/center/patient)", ~ x, y = "y0",
    list(term("region", ~ 1), term("region:center", ~ 1), term("region:center:patient", ~ 1)),
    lmer(y0 ~ x + (1 | region/center/patient), regions, REML = REML, control = lmer_tight)),
  boundary_several = case(
    "regions", "y00 ~ x + (1 | region/center/patient)", ~ x, y = "y00",
    list(term("region", ~ 1), term("region:center", ~ 1), term("region:center:patient", ~ 1)),
    lmer(y00 ~ x + (1 | region/center/patient), regions, REML = REML, control = lmer_tight)),
  crossed_one_slope = case(
    "ratings", "y ~ x + (1 + x | user) + (1 | item)", ~ x,
    list(term("user", ~ 1 + x), term("item", ~ 1)),
    lmer(y ~ x + (1 + x | user) + (1 | item), ratings, REML = REML, control = lmer_tight)),
  crossed_slopes = case(
    "ratings", "y ~ x + (1 + x | user) + (1 + x | item)", ~ x,
    list(term("user", ~ 1 + x), term("item", ~ 1 + x)),
    lmer(y ~ x + (1 + x | user) + (1 + x | item), ratings, REML = REML, control = lmer_tight)),
  crossed_weights_offset = case(
    "ratings", "y ~ x + (1 + x | user) + (1 | item)", ~ x,
    list(term("user", ~ 1 + x), term("item", ~ 1)), weights = "w", offset = "o",
    lmer(y ~ x + (1 + x | user) + (1 | item), ratings, weights = w, offset = o, REML = REML,
         control = lmer_tight)),
  crossed_and_cells = case(
    "ratings", "y ~ x + (1 | user) + (1 | item) + (1 | user:item)", ~ x,
    list(term("user", ~ 1), term("item", ~ 1), term("user:item", ~ 1)),
    lmer(y ~ x + (1 | user) + (1 | item) + (1 | user:item), ratings, REML = REML,
         control = lmer_tight)),
  boundary_item = case(
    "ratings", "y0 ~ x + (1 | user) + (1 | item) + (1 | user:item)", ~ x, y = "y0",
    list(term("user", ~ 1), term("item", ~ 1), term("user:item", ~ 1)),
    lmer(y0 ~ x + (1 | user) + (1 | item) + (1 | user:item), ratings, REML = REML,
         control = lmer_tight)),
  boundary_item_slopes = case(
    "ratings", "y0 ~ x + (1 + x | user) + (1 + x | item)", ~ x, y = "y0",
    list(term("user", ~ 1 + x), term("item", ~ 1 + x)),
    lmer(y0 ~ x + (1 + x | user) + (1 + x | item), ratings, REML = REML, control = lmer_tight)),
  nested_in_crossed = case(
    "schools", "y ~ x + (1 | school/class) + (1 | rater)", ~ x,
    list(term("school", ~ 1), term("school:class", ~ 1), term("rater", ~ 1)),
    lmer(y ~ x + (1 | school/class) + (1 | rater), schools, REML = REML, control = lmer_tight)),
  boundary_class = case(
    "schools", "y0 ~ x + (1 | school/class) + (1 | rater)", ~ x, y = "y0",
    list(term("school", ~ 1), term("school:class", ~ 1), term("rater", ~ 1)),
    lmer(y0 ~ x + (1 | school/class) + (1 | rater), schools, REML = REML, control = lmer_tight))
)

# ---- run ----------------------------------------------------------------------------------------

one <- function(x) if (is.null(x)) NULL else jsonlite::unbox(x)  # a scalar, not an array
named <- function(x, names) lapply(as.list(setNames(x, names)), one)
block_diagonal <- function(blocks) as.matrix(Matrix::bdiag(blocks))

# Effects of some levels of one grouping factor, which may have several terms
effects_of <- function(m, at, group) {
  terms <- Filter(function(k) m$terms[[k]]$group == group, seq_along(m$terms))
  Z <- do.call(cbind, lapply(m$terms[terms], `[[`, "Z"))
  D <- block_diagonal(at$D[terms]); level <- m$terms[[terms[1]]]$level
  shown <- unique(c(head(levels(level), 3), tail(levels(level), 2)))
  found <- lapply(shown, function(one) {
    ZD <- (Z * (level == one)) %*% D
    list(blup = drop(crossprod(ZD, at$v)), cond_var = D - crossprod(ZD, at$Vi %*% ZD))
  })
  list(names = colnames(Z), n_levels = one(nlevels(level)), cov = D, levels = shown,
       blup = lapply(found, function(f) unname(f$blup)),
       cond_var = lapply(found, function(f) unname(f$cond_var)))
}

run <- function(name, reml) {
  spec <- cases[[name]]; data <- data_of(spec$dataset); m <- model_of(spec, data)
  method <- if (reml) "REML" else "ML"
  fits <- lapply(spec$peers, eval, list(REML = reml, method = method))
  s <- list(covariances = lapply(start_of(fits[[1]], m), covariance, sigma(fits[[1]])^2),
            residual = independent)
  if (!is.null(spec$residual)) {
    rho <- coef(fits[[1]]$modelStruct$corStruct, unconstrained = FALSE)
    s$residual <- c(list(start = unname(rho)), power)
  }
  theta <- c(unlist(lapply(s$covariances, `[[`, "start")), s$residual$start, sigma(fits[[1]])^2)
  at <- polish(m, s, theta, reml)
  stopifnot(at$decrement < 1e-9)
  sizes <- sapply(at$D, function(D) nrow(D) * (nrow(D) + 1) / 2)
  n_theta <- sum(sizes) + length(s$residual$start) + 1
  on_boundary <- length(theta) < n_theta
  if (on_boundary) stopifnot(multiplier(m, at, reml) < 0)
  n_params <- ncol(m$X) + n_theta; n <- length(m$y)
  peers <- sapply(fits, function(fit) as.numeric(logLik(fit)))
  groups <- unique(sapply(m$terms, `[[`, "group"))
  result <- list(
    loglik = one(at$loglik), AIC = one(-2 * at$loglik + 2 * n_params),
    BIC = one(-2 * at$loglik + log(n) * n_params), n_params = one(n_params),
    beta = named(at$beta, colnames(m$X)), se_beta = named(sqrt(diag(at$vcov)), colnames(m$X)),
    beta_names = colnames(m$X), vcov_beta = unname(at$vcov), sigma2 = one(at$sigma2),
    on_boundary = one(on_boundary), groups = sapply(groups, effects_of, m = m, at = at, simplify = FALSE),
    fitted_population_first10 = unname(data[[spec$y]] - m$y + m$X %*% at$beta)[1:10],
    polished_score_norm = one(at$decrement), peer_loglik = peers,
    checked_to = one(max(abs(peers - at$loglik)) / abs(at$loglik)))
  if (length(s$residual$start)) result$rho <- one(at$kappa)
  if (!on_boundary) result <- c(result, list(theta = at$theta, info_expected = at$info))
  message(sprintf("%-24s %-4s %.10f  score %.0e  peers %s%s", name, method, at$loglik, at$decrement,
                  paste(sprintf("%+.1e", peers - at$loglik), collapse = " "),
                  if (on_boundary) "  boundary" else ""))
  result
}

version_of <- function(package) as.character(packageVersion(package))
describe <- function(name) {
  spec <- cases[[name]]; data <- data_of(spec$dataset)
  factors <- intersect(names(Filter(is.factor, data)), all.vars(spec$fixed))
  list(dataset = one(spec$dataset), formula = one(spec$formula), weights = one(spec$weights),
       offset = one(spec$offset), residual = one(spec$residual),
       columns = lapply(data[factors], function(f) list(type = one("factor"), levels = levels(f))),
       commands = sapply(spec$peers, function(e) paste(trimws(deparse(e, 500)), collapse = " ")),
       fits = list(ML = run(name, FALSE), REML = run(name, TRUE)))
}
out <- list(
  software = lapply(c(list(R = as.character(getRversion())),
                      lapply(list(lme4 = "lme4", nlme = "nlme"), version_of)), one),
  cases = sapply(names(cases), describe, simplify = FALSE))
jsonlite::write_json(out, "tests/oracle/expected/levels.json", digits = NA, pretty = TRUE,
                     null = "null")
