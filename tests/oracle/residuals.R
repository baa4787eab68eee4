# Expected numbers for residual covariance structures.
#
#   Rscript tests/oracle/residuals.R      (from the root of the project)
#
# needs R with nlme, glmmTMB and jsonlite, reads python/lmmfast/datasets/*.csv and
# tests/oracle/data/*.csv, writes tests/oracle/expected/residuals.json. The tests do not need R.
#
# As in structures.R every model is fitted by packages (`peers`), then the optimum is polished by
# scoring on a dense evaluation of the log-likelihood. V is written out for every case in the
# parameters that lmmfast reports; its derivatives are complex steps, exact to the last digits.

suppressPackageStartupMessages({library(nlme); library(glmmTMB)})
invisible(Sys.setlocale("LC_COLLATE", "C"))  # levels in the order of the bytes, as in Python

bundled <- function(name) read.csv(file.path("python/lmmfast/datasets", paste0(name, ".csv")),
                                   stringsAsFactors = TRUE)
stored <- function(name) read.csv(file.path("tests/oracle/data", paste0(name, ".csv")),
                                  stringsAsFactors = TRUE)
steps <- function(data, column, group)  # from one row of a group to the next
  data[[column]] - ave(data[[column]], data[[group]], FUN = function(x) c(NA, head(x, -1)))

ou_sim <- stored("ou_sim")
wheat <- stored("wheat")
dyestuff2 <- bundled("dyestuff2")
ovary <- bundled("ovary")
bodyweight <- within(bundled("bodyweight"), t <- numFactor(Time))
sleepstudy <- within(bundled("sleepstudy"), {
  w <- c(1, 2, 4)[Days %% 3 + 1]
  half <- factor(ifelse(Days < 5, "early", "late"))
})
orthodont <- within(bundled("orthodont"), { occasion <- (age - 6) / 2; visit <- factor(occasion) })
orthodont_gaps <- orthodont[(seq_len(nrow(orthodont)) - 1) %% 7 != 3, ]
orthodont_steps <- subset(within(orthodont, step <- steps(orthodont, "distance", "Subject")),
                          occasion > 1)
ovary_steps <- subset(within(ovary, step <- steps(ovary, "follicles", "Mare")),
                      Index > 1 & !((Index + 2 * as.integer(Mare)) %% 5 %in% c(0, 3)))
ovary_gaps <- subset(ovary, (Index + 2 * as.integer(Mare)) %% 5 != 0)
data_of <- function(name) get(name, envir = globalenv())

# ---- dense evaluation ---------------------------------------------------------------------------

STEP <- 1e-30
trace_of <- function(A) sum(diag(A))

evaluate <- function(m, theta, reml) {
  n <- length(m$y); p <- ncol(m$X); K <- length(theta)
  S <- matrix(0, p, p); s <- numeric(p); logdet <- 0
  parts <- lapply(m$clusters, function(u) {
    V <- m$V(as.list(theta), u$data)
    U <- chol(V); Vi <- chol2inv(U)
    dV <- lapply(seq_along(theta), function(k) {
      bent <- as.list(theta); bent[[k]] <- complex(real = theta[k], imaginary = STEP)
      Im(m$V(bent, u$data)) / STEP
    })
    c(u, list(V = V, Vi = Vi, dV = dV, logdet = 2 * sum(log(diag(U)))))
  })
  for (u in parts) {
    S <- S + t(u$X) %*% u$Vi %*% u$X; s <- s + t(u$X) %*% u$Vi %*% u$y
    logdet <- logdet + u$logdet
  }
  C <- solve(S); beta <- drop(C %*% s)
  rss <- 0; score <- numeric(K); info <- kr <- matrix(0, K, K)
  quad <- replicate(K, matrix(0, p, p), simplify = FALSE)
  for (u in parts) {
    r <- u$y - drop(u$X %*% beta); v <- drop(u$Vi %*% r); W <- u$Vi %*% u$X
    rss <- rss + sum(r * v)
    A <- lapply(u$dV, function(dV) u$Vi %*% dV)
    for (k in 1:K) {
      score[k] <- score[k] - trace_of(A[[k]]) / 2 + sum(v * (u$dV[[k]] %*% v)) / 2
      quad[[k]] <- quad[[k]] + t(W) %*% u$dV[[k]] %*% W
      for (l in 1:K) {
        info[k, l] <- info[k, l] + sum(A[[k]] * t(A[[l]])) / 2
        kr[k, l] <- kr[k, l] + sum(C * (t(W) %*% u$dV[[k]] %*% u$Vi %*% u$dV[[l]] %*% W))
      }
    }
  }
  loglik <- -(n * log(2 * pi) + logdet + rss) / 2
  if (reml) {
    loglik <- loglik + (p * log(2 * pi) - as.numeric(determinant(S)$modulus)) / 2
    CQ <- lapply(quad, function(Q) C %*% Q)
    score <- score + sapply(CQ, trace_of) / 2
    info <- info - kr + outer(1:K, 1:K, Vectorize(function(k, l) sum(CQ[[k]] * t(CQ[[l]])))) / 2
  }
  list(loglik = loglik, score = score, info = info, beta = beta, vcov = C, parts = parts)
}

polish <- function(m, theta, reml) {
  at <- evaluate(m, theta, reml)
  for (iteration in 1:1000) {
    step <- solve(at$info, at$score)
    if (sqrt(sum(at$score * step)) < 1e-11) break
    fraction <- 1
    repeat {  # the log-likelihood never falls by more than rounding
      trial <- tryCatch(evaluate(m, theta + fraction * step, reml), error = function(e) NULL)
      if (!is.null(trial) && isTRUE(trial$loglik > at$loglik - 1e-11 * abs(at$loglik))) break
      fraction <- fraction / 2
      if (fraction < 1e-9) stop("no step raises the log-likelihood")
    }
    theta <- theta + fraction * step; at <- trial
  }
  at$decrement <- sqrt(sum(at$score * solve(at$info, at$score)))  # score in standard errors
  at$theta <- theta
  at
}

# ---- covariances --------------------------------------------------------------------------------

apart <- function(...) as.matrix(dist(cbind(...)))  # Euclidean distances between rows
pick <- function(th, format, levels) unlist(lapply(sprintf(format, levels), function(k) th[[k]]))
scaled <- function(variances, C) sqrt(variances) %o% sqrt(variances) * C
exchangeable <- function(rho, n) diag(n) * (1 - rho) + rho
arma11 <- function(rho, gamma, lag) ifelse(lag == 0, 1, gamma * rho^pmax(lag - 1, 0))
toeplitz_of <- function(rho, lag) { C <- lag; C[] <- c(1, rho)[lag + 1]; C }
cov_of <- function(th, levels) {  # var(Residual|l) and cov(k,l), k before l
  T <- length(levels); V <- diag(pick(th, "var(Residual|%s)", levels), T)
  for (k in seq_len(T - 1)) for (l in (k + 1):T)
    V[k, l] <- V[l, k] <- th[[sprintf("cov(%s,%s)", levels[k], levels[l])]]
  V
}
# Branches of C have equal first derivatives where they meet.
spherical <- function(d, l) ifelse(d < Re(l), 1 - 1.5 * d / l + 0.5 * (d / l)^3, 0 * l)
ratio <- function(d, l) 1 / (1 + (d / l)^2)
linear <- function(d, l) ifelse(d < Re(l), 1 - d / l, 0 * l)  # with a kink there
matern32 <- function(d, l) (1 + sqrt(3) * d / l) * exp(-sqrt(3) * d / l)

# ---- what the packages say ----------------------------------------------------------------------

gls_tight <- glsControl(opt = "nlminb", maxIter = 500, msMaxIter = 1000, tolerance = 1e-12,
                        msTol = 1e-13)
lme_tight <- lmeControl(opt = "nlminb", maxIter = 500, msMaxIter = 1000, tolerance = 1e-12,
                        msTol = 1e-13, niterEM = 200, returnObject = TRUE)
cor_of <- function(fit) unname(coef(fit$modelStruct$corStruct, unconstrained = FALSE))
var_of <- function(fit) unname(coef(fit$modelStruct$varStruct, unconstrained = FALSE))
intercept_var <- function(fit) as.numeric(VarCorr(fit)[1, 1])
# Variances by stratum in the order of `levels`: gls and lme report ratios of SDs.
strata <- function(fit, levels) {
  ratios <- coef(fit$modelStruct$varStruct, unconstrained = FALSE, allCoef = TRUE)
  names(ratios) <- sub("^A\\.", "", names(ratios))  # the first of a varComb
  setNames((fit$sigma * ratios[as.character(levels)])^2, sprintf("var(Residual|%s)", levels))
}
ar_acf <- function(fit, format) {  # autocorrelations of an AR(p) process, lags 1 to p
  p <- length(cor_of(fit))
  setNames(ARMAacf(ar = cor_of(fit), lag.max = p)[-1], sprintf(format, 1:p))
}
arma_acf <- function(fit) {  # rho and gamma of an ARMA(1,1) process
  acf <- ARMAacf(ar = cor_of(fit)[1], ma = cor_of(fit)[2], lag.max = 1)
  c("rho(Index)" = cor_of(fit)[1], "gamma(Index)" = unname(acf[2]))
}
# Process and nugget variance from nlme's total and nugget fraction
split_nugget <- function(fit, process) setNames(
  fit$sigma^2 * c(1 - cor_of(fit)[2], cor_of(fit)[2]), c(process, "var(Residual)"))

# One case: data, the call of lmmfast (formula, groups, residual, weights), the fixed part, the
# response, cluster, V(th, d) for the rows d of one cluster and start values in lmmfast's names
# from the first peer; then calls of peers with `REML` (glmmTMB) or `method` (nlme) left free.
case <- function(dataset, formula, residual, fixed, group, V, start, ..., weights = NULL)
  list(dataset = dataset, formula = formula, residual = residual, fixed = fixed, group = group,
       V = V, start = start, peers = eval(substitute(alist(...))), weights = weights)

growth <- distance ~ age * Sex
cases <- list(
  cs_negative_dyestuff2 = case(
    "dyestuff2", "Yield ~ 1", "CompoundSymmetry()", Yield ~ 1, "Batch",
    function(th, d) th$`var(Residual)` * exchangeable(th$`cor(Residual)`, nrow(d)),
    function(f) c("var(Residual)" = f$sigma^2, "cor(Residual)" = cor_of(f)),
    gls(Yield ~ 1, dyestuff2, corCompSymm(-0.05, form = ~ 1 | Batch), method = method,
        control = gls_tight)),
  cs_negative_steps = case(
    "orthodont_steps", "step ~ Sex", "CompoundSymmetry()", step ~ Sex, "Subject",
    function(th, d) th$`var(Residual)` * exchangeable(th$`cor(Residual)`, nrow(d)),
    function(f) c("var(Residual)" = f$sigma^2, "cor(Residual)" = cor_of(f)),
    gls(step ~ Sex, orthodont_steps, corCompSymm(-0.2, form = ~ 1 | Subject), method = method,
        control = gls_tight)),
  csh_gaps = case(
    "orthodont_gaps", "distance ~ age * Sex", "HeterogeneousCS('occasion')", growth, "Subject",
    function(th, d) scaled(pick(th, "var(Residual|%s)", d$occasion),
                              exchangeable(th$`cor(Residual)`, nrow(d))),
    function(f) c(strata(f, 1:4), "cor(Residual)" = cor_of(f)),
    gls(distance ~ age * Sex, orthodont_gaps, corCompSymm(form = ~ 1 | Subject),
        varIdent(form = ~ 1 | visit), method = method, control = gls_tight),
    glmmTMB(distance ~ age * Sex + cs(0 + visit | Subject), orthodont_gaps, dispformula = ~ 0,
            REML = REML)),
  us_gaps = case(
    "orthodont_gaps", "distance ~ age * Sex", "Unstructured('occasion')", growth, "Subject",
    function(th, d) cov_of(th, 1:4)[d$occasion, d$occasion, drop = FALSE],
    function(f) {
      V <- tcrossprod(sqrt(strata(f, 1:4))) * (diag(4) + local({
        C <- matrix(0, 4, 4); C[lower.tri(C)] <- cor_of(f); C + t(C) }))
      below <- which(lower.tri(V), arr.ind = TRUE)
      c(strata(f, 1:4), setNames(V[below], sprintf("cov(%d,%d)", below[, 2], below[, 1])))
    },
    gls(distance ~ age * Sex, orthodont_gaps, corSymm(form = ~ occasion | Subject),
        varIdent(form = ~ 1 | visit), method = method, control = gls_tight),
    glmmTMB(distance ~ age * Sex + us(0 + visit | Subject), orthodont_gaps, dispformula = ~ 0,
            REML = REML)),
  ar1_negative_gaps = case(
    "ovary_steps", "step ~ sin1 + cos1", "AR1('Index')", step ~ sin1 + cos1, "Mare",
    function(th, d) th$`var(Residual)` * th$`rho(Index)`^apart(d$Index),
    function(f) c("var(Residual)" = f$sigma^2, "rho(Index)" = cor_of(f)),
    gls(step ~ sin1 + cos1, ovary_steps, corAR1(-0.2, form = ~ Index | Mare), method = method,
        control = gls_tight)),
  ar1_weights = case(
    "sleepstudy", "Reaction ~ Days", "AR1('Days')", Reaction ~ Days, "Subject", weights = "w",
    function(th, d) th$`var(Residual)` * th$`rho(Days)`^apart(d$Days) / sqrt(d$w %o% d$w),
    function(f) c("var(Residual)" = f$sigma^2, "rho(Days)" = cor_of(f)),
    gls(Reaction ~ Days, sleepstudy, corAR1(form = ~ Days | Subject), varFixed(~ 1 / w),
        method = method, control = gls_tight)),
  arh1_gaps = case(
    "orthodont_gaps", "distance ~ age * Sex", "HeterogeneousAR1('occasion')", growth, "Subject",
    function(th, d) scaled(pick(th, "var(Residual|%s)", d$occasion),
                              th$`rho(occasion)`^apart(d$occasion)),
    function(f) c(strata(f, 1:4), "rho(occasion)" = cor_of(f)),
    gls(distance ~ age * Sex, orthodont_gaps, corAR1(form = ~ occasion | Subject),
        varIdent(form = ~ 1 | visit), method = method, control = gls_tight)),
  toeplitz_gaps = case(  # an AR(3) process has three free correlations
    "orthodont_gaps", "distance ~ age * Sex", "Toeplitz('occasion')", growth, "Subject",
    function(th, d) th$`var(Residual)` *
      toeplitz_of(pick(th, "rho%d(occasion)", 1:3), apart(d$occasion)),
    function(f) c("var(Residual)" = f$sigma^2, ar_acf(f, "rho%d(occasion)")),
    gls(distance ~ age * Sex, orthodont_gaps, corARMA(form = ~ occasion | Subject, p = 3),
        method = method, control = gls_tight)),
  banded_steps = case(  # as is MA(1) one with a single free correlation
    "ovary_steps", "step ~ sin1 + cos1", "Toeplitz('Index', bands=1)", step ~ sin1 + cos1, "Mare",
    function(th, d) th$`var(Residual)` *
      toeplitz_of(c(th$`rho1(Index)`, rep(0, 99)), apart(d$Index)),
    function(f) c("var(Residual)" = f$sigma^2, "rho1(Index)" = cor_of(f) / (1 + cor_of(f)^2)),
    gls(step ~ sin1 + cos1, ovary_steps, corARMA(form = ~ Index | Mare, q = 1), method = method,
        control = gls_tight)),
  toeph_gaps = case(
    "orthodont_gaps", "distance ~ age * Sex", "HeterogeneousToeplitz('occasion')", growth,
    "Subject",
    function(th, d) scaled(pick(th, "var(Residual|%s)", d$occasion),
                              toeplitz_of(pick(th, "rho%d(occasion)", 1:3), apart(d$occasion))),
    function(f) c(strata(f, 1:4), ar_acf(f, "rho%d(occasion)")),
    gls(distance ~ age * Sex, orthodont_gaps, corARMA(form = ~ occasion | Subject, p = 3),
        varIdent(form = ~ 1 | visit), method = method, control = gls_tight),
    glmmTMB(distance ~ age * Sex + toep(0 + visit | Subject), orthodont_gaps, dispformula = ~ 0,
            REML = REML)),
  car1_bodyweight = case(
    "bodyweight", "weight ~ Time * Diet", "OU('Time')", weight ~ Time * Diet, "Rat",
    function(th, d) th$`var(Residual)` * th$`rho(Time)`^apart(d$Time),
    function(f) c("var(Residual)" = f$sigma^2, "rho(Time)" = cor_of(f)),
    gls(weight ~ Time * Diet, bodyweight, corCAR1(0.9, form = ~ Time | Rat), method = method,
        control = gls_tight)),
  ou_nugget_intercept = case(
    "ovary", "follicles ~ sin1 + cos1 + (1 | Mare)", "OU('Time', nugget=True)",
    follicles ~ sin1 + cos1, "Mare",
    function(th, d) th$`var(Intercept|Mare)` + th$`var(OU|Time)` *
      exp(log(th$`rho(Time)`) * apart(d$Time)) + diag(nrow(d)) * th$`var(Residual)`,
    function(f) c("var(Intercept|Mare)" = intercept_var(f), split_nugget(f, "var(OU|Time)"),
                  "rho(Time)" = exp(-1 / cor_of(f)[1])),
    lme(follicles ~ sin1 + cos1, ovary, ~ 1 | Mare,
        corExp(c(0.1, 0.1), form = ~ Time | Mare, nugget = TRUE), method = method,
        control = lme_tight)),
  exponential_ovary = case(
    "ovary", "follicles ~ sin1 + cos1", "SpatialExponential('Time')", follicles ~ sin1 + cos1,
    "Mare",
    function(th, d) th$`var(Residual)` * exp(-apart(d$Time) / th$`range(Time)`),
    function(f) c("var(Residual)" = f$sigma^2, "range(Time)" = cor_of(f)),
    gls(follicles ~ sin1 + cos1, ovary, corExp(0.1, form = ~ Time | Mare), method = method,
        control = gls_tight)),
  gaussian_ou_sim = case(
    "ou_sim", "y ~ trt * t", "SpatialGaussian('t', nugget=True)", y ~ trt * t, "id",
    function(th, d) th$`var(Spatial|t)` * exp(-(apart(d$t) / th$`range(t)`)^2) +
      diag(nrow(d)) * th$`var(Residual)`,
    function(f) c(split_nugget(f, "var(Spatial|t)"), "range(t)" = cor_of(f)[1]),
    gls(y ~ trt * t, ou_sim, corGaus(c(2, 0.3), form = ~ t | id, nugget = TRUE),
        method = method, control = gls_tight)),
  spherical_ou_sim = case(
    "ou_sim", "y ~ trt * t", "SpatialSpherical('t', nugget=True)", y ~ trt * t, "id",
    function(th, d) th$`var(Spatial|t)` * spherical(apart(d$t), th$`range(t)`) +
      diag(nrow(d)) * th$`var(Residual)`,
    function(f) c(split_nugget(f, "var(Spatial|t)"), "range(t)" = cor_of(f)[1]),
    gls(y ~ trt * t, ou_sim, corSpher(c(5, 0.2), form = ~ t | id, nugget = TRUE),
        method = method, control = gls_tight)),
  matern_bodyweight = case(  # glmmTMB has no sqrt(2 nu) in the argument of the Bessel function
    "bodyweight", "weight ~ Time * Diet", "SpatialMatern('Time', nu=1.5, nugget=True)",
    weight ~ Time * Diet, "Rat",
    function(th, d) th$`var(Spatial|Time)` * matern32(apart(d$Time), th$`range(Time)`) +
      diag(nrow(d)) * th$`var(Residual)`,
    function(f) {
      par <- f$fit$par; th <- par[names(par) == "theta"]
      c("var(Spatial|Time)" = exp(2 * th[[1]]), "var(Residual)" = sigma(f)^2,
        "range(Time)" = sqrt(3) * exp(th[[2]]))
    },
    glmmTMB(weight ~ Time * Diet + mat(0 + t | Rat), bodyweight, REML = REML,
            start = list(theta = c(3, 4, log(1.5))), map = list(theta = factor(c(1, 2, NA))))),
  exponential_wheat = case(
    "wheat", "yield ~ 1", "SpatialExponential('latitude', 'longitude', nugget=True)", yield ~ 1,
    "Block",
    function(th, d) th$`var(Spatial|latitude,longitude)` *
      exp(-apart(d$latitude, d$longitude) / th$`range(latitude,longitude)`) +
      diag(nrow(d)) * th$`var(Residual)`,
    function(f) c(split_nugget(f, "var(Spatial|latitude,longitude)"),
                  "range(latitude,longitude)" = cor_of(f)[1]),
    gls(yield ~ 1, wheat, corExp(c(10, 0.2), form = ~ latitude + longitude | Block, nugget = TRUE),
        method = method, control = gls_tight)),
  gaussian_wheat = case(
    "wheat", "yield ~ 1", "SpatialGaussian('latitude', 'longitude', nugget=True)", yield ~ 1,
    "Block",
    function(th, d) th$`var(Spatial|latitude,longitude)` *
      exp(-(apart(d$latitude, d$longitude) / th$`range(latitude,longitude)`)^2) +
      diag(nrow(d)) * th$`var(Residual)`,
    function(f) c(split_nugget(f, "var(Spatial|latitude,longitude)"),
                  "range(latitude,longitude)" = cor_of(f)[1]),
    gls(yield ~ 1, wheat, corGaus(c(10, 0.2), form = ~ latitude + longitude | Block, nugget = TRUE),
        method = method, control = gls_tight)),
  rational_ou_sim = case(
    "ou_sim", "y ~ trt * t", "SpatialRationalQuadratic('t', nugget=True)", y ~ trt * t, "id",
    function(th, d) th$`var(Spatial|t)` * ratio(apart(d$t), th$`range(t)`) +
      diag(nrow(d)) * th$`var(Residual)`,
    function(f) c(split_nugget(f, "var(Spatial|t)"), "range(t)" = cor_of(f)[1]),
    gls(y ~ trt * t, ou_sim, corRatio(c(2, 0.3), form = ~ t | id, nugget = TRUE),
        method = method, control = gls_tight)),
  rational_ovary = case(
    "ovary", "follicles ~ sin1 + cos1 + (1 | Mare)", "SpatialRationalQuadratic('Time')",
    follicles ~ sin1 + cos1, "Mare",
    function(th, d) th$`var(Intercept|Mare)` +
      th$`var(Residual)` * ratio(apart(d$Time), th$`range(Time)`),
    function(f) c("var(Intercept|Mare)" = intercept_var(f), "var(Residual)" = f$sigma^2,
                  "range(Time)" = cor_of(f)),
    lme(follicles ~ sin1 + cos1, ovary, ~ 1 | Mare, corRatio(0.05, form = ~ Time | Mare),
        method = method, control = lme_tight)),
  rational_wheat = case(
    "wheat", "yield ~ 1", "SpatialRationalQuadratic('latitude', 'longitude', nugget=True)",
    yield ~ 1, "Block",
    function(th, d) th$`var(Spatial|latitude,longitude)` *
      ratio(apart(d$latitude, d$longitude), th$`range(latitude,longitude)`) +
      diag(nrow(d)) * th$`var(Residual)`,
    function(f) c(split_nugget(f, "var(Spatial|latitude,longitude)"),
                  "range(latitude,longitude)" = cor_of(f)[1]),
    gls(yield ~ 1, wheat, corRatio(c(10, 0.2), form = ~ latitude + longitude | Block,
                                   nugget = TRUE), method = method, control = gls_tight)),
  linear_nugget = case(
    "bodyweight", "weight ~ Time * Diet", "SpatialLinear('Time', nugget=True)",
    weight ~ Time * Diet, "Rat",
    function(th, d) th$`var(Spatial|Time)` * linear(apart(d$Time), th$`range(Time)`) +
      diag(nrow(d)) * th$`var(Residual)`,
    function(f) c(split_nugget(f, "var(Spatial|Time)"), "range(Time)" = cor_of(f)[1]),
    gls(weight ~ Time * Diet, bodyweight, corLin(c(400, 0.01), form = ~ Time | Rat, nugget = TRUE),
        method = method, control = gls_tight)),
  linear_bodyweight = case(
    "bodyweight", "weight ~ Time * Diet", "SpatialLinear('Time')", weight ~ Time * Diet, "Rat",
    function(th, d) th$`var(Residual)` * linear(apart(d$Time), th$`range(Time)`),
    function(f) c("var(Residual)" = f$sigma^2, "range(Time)" = cor_of(f)),
    gls(weight ~ Time * Diet, bodyweight, corLin(200, form = ~ Time | Rat), method = method,
        control = gls_tight)),
  arma11_gaps = case(
    "ovary_gaps", "follicles ~ sin1 + cos1", "ARMA11('Index')", follicles ~ sin1 + cos1, "Mare",
    function(th, d) th$`var(Residual)` *
      arma11(th$`rho(Index)`, th$`gamma(Index)`, apart(d$Index)),
    function(f) c("var(Residual)" = f$sigma^2, arma_acf(f)),
    gls(follicles ~ sin1 + cos1, ovary_gaps, corARMA(form = ~ Index | Mare, p = 1, q = 1),
        method = method, control = gls_tight)),
  arma11_intercept = case(
    "ovary", "follicles ~ sin1 + cos1 + (1 | Mare)", "ARMA11('Index')", follicles ~ sin1 + cos1,
    "Mare",
    function(th, d) th$`var(Intercept|Mare)` + th$`var(Residual)` *
      arma11(th$`rho(Index)`, th$`gamma(Index)`, apart(d$Index)),
    function(f) c("var(Intercept|Mare)" = intercept_var(f), "var(Residual)" = f$sigma^2,
                  arma_acf(f)),
    lme(follicles ~ sin1 + cos1, ovary, ~ 1 | Mare,
        corARMA(form = ~ Index | Mare, p = 1, q = 1), method = method, control = lme_tight)),
  by_group = case(
    "orthodont", "distance ~ age * Sex", "ByGroup('Sex')", growth, "Subject",
    function(th, d) diag(pick(th, "var(Residual|%s)", d$Sex), nrow(d)),
    function(f) strata(f, c("Female", "Male")),
    gls(distance ~ age * Sex, orthodont, weights = varIdent(form = ~ 1 | Sex), method = method,
        control = gls_tight)),
  power = case(
    "orthodont", "distance ~ age * Sex", "VarPower('age')", growth, "Subject",
    function(th, d) diag(th$`var(Residual)` * exp(2 * th$`power(age)` * log(d$age)), nrow(d)),
    function(f) c("var(Residual)" = f$sigma^2, "power(age)" = var_of(f)),
    gls(distance ~ age * Sex, orthodont, weights = varPower(form = ~ age), method = method,
        control = gls_tight)),
  expon = case(
    "orthodont", "distance ~ age * Sex", "VarExp('age')", growth, "Subject",
    function(th, d) diag(th$`var(Residual)` * exp(2 * th$`expon(age)` * d$age), nrow(d)),
    function(f) c("var(Residual)" = f$sigma^2, "expon(age)" = var_of(f)),
    gls(distance ~ age * Sex, orthodont, weights = varExp(form = ~ age), method = method,
        control = gls_tight)),
  by_group_power_intercept = case(
    "orthodont", "distance ~ age * Sex + (1 | Subject)", "ByGroup('Sex') * VarPower('age')",
    growth, "Subject",
    function(th, d) th$`var(Intercept|Subject)` +
      diag(pick(th, "var(Residual|%s)", d$Sex) * exp(2 * th$`power(age)` * log(d$age)), nrow(d)),
    function(f) c("var(Intercept|Subject)" = intercept_var(f), strata(f, c("Female", "Male")),
                  "power(age)" = var_of(f)[2]),
    lme(distance ~ age * Sex, orthodont, ~ 1 | Subject,
        weights = varComb(varIdent(form = ~ 1 | Sex), varPower(form = ~ age)), method = method,
        control = lme_tight)),
  expon_intercept = case(
    "orthodont", "distance ~ age * Sex + (1 | Subject)", "VarExp('age')", growth, "Subject",
    function(th, d) th$`var(Intercept|Subject)` +
      diag(th$`var(Residual)` * exp(2 * th$`expon(age)` * d$age), nrow(d)),
    function(f) c("var(Intercept|Subject)" = intercept_var(f), "var(Residual)" = f$sigma^2,
                  "expon(age)" = var_of(f)),
    lme(distance ~ age * Sex, orthodont, ~ 1 | Subject, weights = varExp(form = ~ age),
        method = method, control = lme_tight)),
  ar1_intercept = case(
    "sleepstudy", "Reaction ~ Days + (1 | Subject)", "AR1('Days')", Reaction ~ Days, "Subject",
    function(th, d) th$`var(Intercept|Subject)` +
      th$`var(Residual)` * th$`rho(Days)`^apart(d$Days),
    function(f) c("var(Intercept|Subject)" = intercept_var(f), "var(Residual)" = f$sigma^2,
                  "rho(Days)" = cor_of(f)),
    lme(Reaction ~ Days, sleepstudy, ~ 1 | Subject, corAR1(form = ~ Days | Subject),
        method = method, control = lme_tight)),
  ar1_by_group_intercept = case(
    "sleepstudy", "Reaction ~ Days + (1 | Subject)", "AR1('Days') * ByGroup('half')",
    Reaction ~ Days, "Subject",
    function(th, d) th$`var(Intercept|Subject)` +
      scaled(pick(th, "var(Residual|%s)", d$half), th$`rho(Days)`^apart(d$Days)),
    function(f) c("var(Intercept|Subject)" = intercept_var(f), strata(f, c("early", "late")),
                  "rho(Days)" = cor_of(f)),
    lme(Reaction ~ Days, sleepstudy, ~ 1 | Subject, corAR1(form = ~ Days | Subject),
        varIdent(form = ~ 1 | half), method = method, control = lme_tight)),
  ar1_by_group_power_intercept = case(
    "orthodont", "distance ~ age * Sex + (1 | Subject)",
    "AR1('occasion') * ByGroup('Sex') * VarPower('age')", growth, "Subject",
    function(th, d) th$`var(Intercept|Subject)` +
      scaled(pick(th, "var(Residual|%s)", d$Sex) * exp(2 * th$`power(age)` * log(d$age)),
             th$`rho(occasion)`^apart(d$occasion)),
    function(f) c("var(Intercept|Subject)" = intercept_var(f), strata(f, c("Female", "Male")),
                  "rho(occasion)" = cor_of(f),
                  "power(age)" = var_of(f)[2]),
    lme(distance ~ age * Sex, orthodont, ~ 1 | Subject, corAR1(form = ~ occasion | Subject),
        varComb(varIdent(form = ~ 1 | Sex), varPower(form = ~ age)), method = method,
        control = lme_tight))
)

# ---- run ----------------------------------------------------------------------------------------

one <- function(x) if (is.null(x)) NULL else jsonlite::unbox(x)  # a scalar, not an array
named <- function(x, names) lapply(as.list(setNames(x, names)), one)

blups <- function(spec, best) {  # of a random intercept
  G <- best$theta[[1]]
  t(sapply(best$parts, function(u) {
    w <- rowSums(u$Vi)
    c(blup = G * sum(w * (u$y - u$X %*% best$beta)), cond_var = G - G^2 * sum(w))
  }))
}

run <- function(name, reml) {
  spec <- cases[[name]]; data <- data_of(spec$dataset); method <- if (reml) "REML" else "ML"
  X <- model.matrix(spec$fixed, data); y <- model.response(model.frame(spec$fixed, data))
  m <- list(y = y, X = X, V = spec$V, clusters = lapply(
    split(seq_len(nrow(data)), data[[spec$group]]),
    function(rows) list(y = y[rows], X = X[rows, , drop = FALSE], data = data[rows, ])))
  fits <- lapply(spec$peers, eval, list(REML = reml, method = method))
  best <- polish(m, spec$start(fits[[1]]), reml)
  peers <- sapply(fits, function(fit) as.numeric(logLik(fit)))
  n_params <- ncol(X) + length(best$theta)
  result <- list(
    loglik = one(best$loglik), AIC = one(-2 * best$loglik + 2 * n_params),
    BIC = one(-2 * best$loglik + log(nrow(data)) * n_params), n_params = one(n_params),
    beta = named(best$beta, colnames(X)), se_beta = named(sqrt(diag(best$vcov)), colnames(X)),
    beta_names = colnames(X), vcov_beta = unname(best$vcov),
    theta = named(best$theta, names(best$theta)), info_expected = unname(best$info),
    polished_score_norm = one(best$decrement), peer_loglik = peers,
    checked_to = one(max(abs(peers - best$loglik)) / abs(best$loglik)))
  if (grepl("|", spec$formula, fixed = TRUE)) {
    b <- blups(spec, best)
    result$ranef <- list(levels = names(m$clusters), blup = unname(b[, "blup"]),
                         cond_var = unname(b[, "cond_var"]))
  }
  message(sprintf("%-30s %-4s %.10f  score %.0e  peers %s | %s", name, method, best$loglik,
                  best$decrement, paste(sprintf("%+.1e", peers - best$loglik), collapse = " "),
                  paste(sprintf("%s=%.4g", names(best$theta), best$theta), collapse = " ")))
  result
}

version_of <- function(package) as.character(packageVersion(package))
describe <- function(name) {
  spec <- cases[[name]]; data <- data_of(spec$dataset)
  factors <- intersect(names(Filter(is.factor, data)), all.vars(spec$fixed))
  list(dataset = one(spec$dataset), formula = one(spec$formula), residual = one(spec$residual),
       groups = one(spec$group), weights = one(spec$weights), n_obs = one(nrow(data)),
       columns = lapply(data[factors], function(f) list(type = one("factor"), levels = levels(f))),
       commands = sapply(spec$peers, function(e) paste(trimws(deparse(e, 500)), collapse = " ")),
       fits = list(ML = run(name, FALSE), REML = run(name, TRUE)))
}
out <- list(
  software = lapply(c(list(R = as.character(getRversion())), lapply(
    list(nlme = "nlme", glmmTMB = "glmmTMB"), version_of)), one),
  cases = sapply(names(cases), describe, simplify = FALSE))
jsonlite::write_json(out, "tests/oracle/expected/residuals.json", digits = NA, pretty = TRUE,
                     null = "null")
