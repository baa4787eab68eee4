# Expected numbers for structures of D, known weights, offsets and grouping by a:b.
#
#   Rscript tests/oracle/structures.R      (from the root of the project)
#
# needs R with nlme, lme4, glmmTMB, numDeriv and jsonlite, reads python/lmmfast/datasets/*.csv and
# writes tests/oracle/expected/structures.json. The tests themselves do not need R.
#
# Every model is fitted by a package (`peers`), then the optimum is polished: scoring steps on a
# dense evaluation of the log-likelihood (V_i formed, no tricks) down to a score of ~1e-10 standard
# errors. `checked_to` is the largest relative disagreement between the log-likelihood of a peer
# and the polished one.

suppressPackageStartupMessages({library(nlme); library(lme4); library(glmmTMB)})
invisible(Sys.setlocale("LC_COLLATE", "C"))  # levels in the order of the bytes, as in Python

read <- function(name) read.csv(file.path("python/lmmfast/datasets", paste0(name, ".csv")),
                                stringsAsFactors = TRUE)

sleepstudy <- within(read("sleepstudy"), {
  w <- c(1, 2, 4)[Days %% 3 + 1]
  o <- 5 * Days + Days^2 / 4
})
orthodont <- within(read("orthodont"), w <- ifelse(Sex == "Male", 2, 1) * (age - 6))
hepatitis <- within(read("hepatitis"), infant <- factor(infant))
cake <- within(read("cake"), mix <- interaction(recipe, replicate, sep = ":", lex.order = TRUE))
pastes <- read("pastes"); oxide <- read("oxide"); ovary <- read("ovary")
bodyweight <- read("bodyweight")
data_of <- function(name) get(name, envir = globalenv())

# ---- structures: parameters -> D (q, q) and its derivatives (list of (q, q)) --------------------

linear <- function(basis) list(  # D = sum_k par_k basis_k
  D = function(par) Reduce(`+`, Map(`*`, par, basis)),
  dD = function(par) basis,
  start = function(D) qr.solve(sapply(basis, c), c(D)))

unit <- function(q, j, k = j) { E <- matrix(0, q, q); E[j, k] <- E[k, j] <- 1; E }

unstructured <- function(q) linear(unlist(
  lapply(1:q, function(k) lapply(k:q, function(j) unit(q, j, k))), recursive = FALSE))
diagonal <- function(q) linear(lapply(1:q, function(j) unit(q, j)))
identity_ <- function(q) linear(list(diag(q)))
cs_hom <- function(q) linear(list(diag(q), matrix(1, q, q)))
blocks <- function(...) {  # several terms on one grouping factor, each with its own D
  terms <- list(...)       # each: list(q, structure)
  q <- sum(sapply(terms, `[[`, 1)); at <- 0; basis <- list()
  for (term in terms) {
    rows <- at + seq_len(term[[1]]); at <- max(rows)
    basis <- c(basis, lapply(term[[2]](term[[1]])$dD(NULL), function(B) {
      E <- matrix(0, q, q); E[rows, rows] <- B; E }))
  }
  linear(basis)
}
nonlinear <- function(D, start) list(
  D = D, start = start,
  dD = function(par) {
    J <- numDeriv::jacobian(function(x) c(D(x)), par)
    lapply(seq_along(par), function(k) { q <- sqrt(nrow(J)); matrix(J[, k], q, q) })
  })
cs_het <- function(q) nonlinear(  # standard deviations, then the common correlation
  function(par) outer(par[1:q], par[1:q]) * ((1 - par[q + 1]) * diag(q) + par[q + 1]),
  function(D) c(sqrt(diag(D)), mean(cov2cor(D)[lower.tri(D)])))
low_rank <- function(r) function(q) {  # D on the boundary: D = L L', L (q, r) lower trapezoidal
  entries <- which(lower.tri(matrix(0, q, r), diag = TRUE))
  nonlinear(
    function(par) { L <- matrix(0, q, r); L[entries] <- par; tcrossprod(L) },
    function(D) {  # the factor of rank r nearest to D, rotated to a trapezoid
      e <- eigen(D)
      root <- e$vectors[, 1:r, drop = FALSE] %*% diag(sqrt(e$values[1:r]), r)
      t(qr.R(qr(t(root))))[entries]
    })
}

# ---- dense evaluation ---------------------------------------------------------------------------

totals <- function(m, structure, theta) {
  K <- length(theta); par <- theta[-K]; sigma2 <- theta[K]
  D <- structure$D(par); dD <- structure$dD(par); p <- ncol(m$X)
  S <- matrix(0, p, p); s <- numeric(p); logdet <- 0; parts <- list()
  for (rows in m$rows) {
    Z <- m$Z[rows, , drop = FALSE]; Rw <- diag(1 / m$w[rows], length(rows))
    V <- Z %*% D %*% t(Z) + sigma2 * Rw
    U <- chol(V); Vi <- chol2inv(U); X <- m$X[rows, , drop = FALSE]
    logdet <- logdet + 2 * sum(log(diag(U)))
    S <- S + t(X) %*% Vi %*% X; s <- s + t(X) %*% Vi %*% m$y[rows]
    dV <- c(lapply(dD, function(E) Z %*% E %*% t(Z)), list(Rw))
    parts[[length(parts) + 1]] <- list(rows = rows, X = X, Z = Z, Vi = Vi, dV = dV)
  }
  list(D = D, sigma2 = sigma2, S = S, beta = drop(solve(S, s)), logdet = logdet, parts = parts)
}

evaluate <- function(m, structure, theta, reml) {
  t0 <- totals(m, structure, theta); K <- length(theta); p <- ncol(m$X); n <- length(m$y)
  C <- solve(t0$S); rss <- 0; score <- numeric(K); info <- matrix(0, K, K)
  quadX <- replicate(K, matrix(0, p, p), simplify = FALSE)
  kr <- matrix(0, K, K)
  for (u in t0$parts) {
    r <- m$y[u$rows] - drop(u$X %*% t0$beta); v <- drop(u$Vi %*% r); W <- u$Vi %*% u$X
    rss <- rss + sum(r * v)
    A <- lapply(u$dV, function(dV) u$Vi %*% dV)
    for (k in 1:K) {
      score[k] <- score[k] - sum(diag(A[[k]])) / 2 + sum(v * (u$dV[[k]] %*% v)) / 2
      quadX[[k]] <- quadX[[k]] + t(W) %*% u$dV[[k]] %*% W
      for (l in 1:K) {
        info[k, l] <- info[k, l] + sum(A[[k]] * t(A[[l]])) / 2
        kr[k, l] <- kr[k, l] + sum(C * (t(W) %*% u$dV[[k]] %*% u$Vi %*% u$dV[[l]] %*% W))
      }
    }
  }
  loglik <- -(n * log(2 * pi) + t0$logdet + rss) / 2
  if (reml) {
    loglik <- loglik + (p * log(2 * pi) - as.numeric(determinant(t0$S)$modulus)) / 2
    CQ <- lapply(quadX, function(Q) C %*% Q)
    score <- score + sapply(CQ, function(M) sum(diag(M))) / 2
    info <- info - kr + outer(1:K, 1:K, Vectorize(function(k, l) sum(CQ[[k]] * t(CQ[[l]])))) / 2
  }
  list(loglik = loglik, score = score, info = info, beta = t0$beta, vcov = C,
       D = t0$D, sigma2 = t0$sigma2, parts = t0$parts)
}

polish <- function(m, structure, theta, reml) {
  at <- evaluate(m, structure, theta, reml)
  for (iteration in 1:2000) {
    step <- solve(at$info, at$score)
    if (sqrt(sum(at$score * step)) < 1e-11) break
    repeat {  # the log-likelihood never falls by more than rounding
      trial <- tryCatch(evaluate(m, structure, theta + step, reml), error = function(e) NULL)
      if (!is.null(trial) && trial$loglik > at$loglik - 1e-11 * abs(at$loglik)) break
      step <- step / 2
    }
    theta <- theta + step; at <- trial
  }
  at$decrement <- sqrt(sum(at$score * solve(at$info, at$score)))  # score in standard errors
  at$theta <- theta
  at
}

# ---- the peers ----------------------------------------------------------------------------------

lme_tight <- lmeControl(opt = "nlminb", maxIter = 500, msMaxIter = 1000, tolerance = 1e-12,
                        msTol = 1e-13, niterEM = 200, returnObject = TRUE)
lmer_tight <- lmerControl(optimizer = "bobyqa", calc.derivs = FALSE,
                          optCtrl = list(rhobeg = 2e-2, rhoend = 1e-10, maxfun = 1e5),
                          check.conv.singular = "ignore")

# D (q, q) and sigma^2 of a peer's fit, as a start of the polishing
start_of <- function(fit, q) {
  if (inherits(fit, "lme")) {
    list(D = matrix(as.matrix(nlme::getVarCov(fit)), q, q), sigma2 = fit$sigma^2)
  } else if (inherits(fit, "glmmTMB")) {
    list(D = matrix(c(glmmTMB::VarCorr(fit)$cond[[1]]), q, q), sigma2 = sigma(fit)^2)
  } else {
    terms <- lapply(lme4::VarCorr(fit), function(V) matrix(c(V), nrow(V)))
    list(D = as.matrix(Matrix::bdiag(terms)), sigma2 = sigma(fit)^2)
  }
}

# One case: the formula for lmmfast, the pieces of the model for the dense evaluation, and calls of
# peers with `REML` (lme4, glmmTMB) or `method` (nlme) left free. The first peer gives the start
# values unless `start` (a function of its fit) says otherwise.
case <- function(dataset, formula, fixed, random, group, structure, ..., y, weights = NULL,
                 offset = NULL, start = NULL, boundary = FALSE, structure_name)
  list(dataset = dataset, formula = formula, fixed = fixed, random = random, group = group,
       structure = structure, peers = eval(substitute(alist(...))), y = y, weights = weights,
       offset = offset, start = start, boundary = boundary, structure_name = structure_name)

cases <- list(
  identity_orthodont = case(
    "orthodont", "distance ~ age * Sex + identity(1 + I(age - 11) | Subject)",
    ~ age * Sex, ~ 1 + I(age - 11), "Subject", identity_, y = "distance",
    structure_name = "identity",
    lme(distance ~ age * Sex, orthodont, list(Subject = pdIdent(~ I(age - 11))),
        method = method, control = lme_tight)),
  identity_pastes = case(
    "pastes", "strength ~ 1 + identity(0 + cask | batch)",
    ~ 1, ~ 0 + cask, "batch", identity_, y = "strength", structure_name = "identity",
    lme(strength ~ 1, pastes, list(batch = pdIdent(~ cask - 1)), method = method,
        control = lme_tight),
    lmer(strength ~ 1 + (1 | batch:cask), pastes, REML = REML, control = lmer_tight)),
  diag_orthodont = case(
    "orthodont", "distance ~ age * Sex + diag(1 + I(age - 11) | Subject)",
    ~ age * Sex, ~ 1 + I(age - 11), "Subject", diagonal, y = "distance", structure_name = "diag",
    lme(distance ~ age * Sex, orthodont, list(Subject = pdDiag(~ I(age - 11))),
        method = method, control = lme_tight)),
  diag_cake = case(
    "cake", "angle ~ recipe + temp + diag(0 + recipe | replicate)",
    ~ recipe + temp, ~ 0 + recipe, "replicate", diagonal, y = "angle", structure_name = "diag",
    lme(angle ~ recipe + temp, cake, list(replicate = pdDiag(~ recipe - 1)), method = method,
        control = lme_tight)),
  cs_hom_pastes = case(
    "pastes", "strength ~ 1 + cs(0 + cask | batch, hom=TRUE)",
    ~ 1, ~ 0 + cask, "batch", cs_hom, y = "strength", structure_name = "cs_hom",
    lme(strength ~ 1, pastes, list(batch = pdCompSymm(~ cask - 1)), method = method,
        control = lme_tight),
    lmer(strength ~ 1 + (1 | batch / cask), pastes, REML = REML, control = lmer_tight)),
  cs_hom_oxide = case(
    "oxide", "Thickness ~ Source + cs(0 + Wafer | Lot, hom=TRUE)",
    ~ Source, ~ 0 + Wafer, "Lot", cs_hom, y = "Thickness", structure_name = "cs_hom",
    lme(Thickness ~ Source, oxide, list(Lot = pdCompSymm(~ Wafer - 1)), method = method,
        control = lme_tight),
    lmer(Thickness ~ Source + (1 | Lot / Wafer), oxide, REML = REML, control = lmer_tight)),
  cs_hom_cake = case(
    "cake", "angle ~ recipe + temp + cs(0 + recipe | replicate, hom=TRUE)",
    ~ recipe + temp, ~ 0 + recipe, "replicate", cs_hom, y = "angle", structure_name = "cs_hom",
    lme(angle ~ recipe + temp, cake, list(replicate = pdCompSymm(~ recipe - 1)),
        method = method, control = lme_tight),
    lmer(angle ~ recipe + temp + (1 | replicate / recipe), cake, REML = REML,
         control = lmer_tight)),
  cs_het_cake = case(
    "cake", "angle ~ recipe + temp + cs(0 + recipe | replicate)",
    ~ recipe + temp, ~ 0 + recipe, "replicate", cs_het, y = "angle", structure_name = "cs_het",
    glmmTMB(angle ~ recipe + temp + cs(0 + recipe | replicate), cake, REML = REML)),
  cs_het_pastes = case(
    "pastes", "strength ~ 1 + cs(0 + cask | batch)",
    ~ 1, ~ 0 + cask, "batch", cs_het, y = "strength", structure_name = "cs_het",
    glmmTMB(strength ~ 1 + cs(0 + cask | batch), pastes, REML = REML)),
  unstructured_cake = case(
    "cake", "angle ~ recipe + temp + (0 + recipe | replicate)",
    ~ recipe + temp, ~ 0 + recipe, "replicate", low_rank(2), y = "angle", boundary = TRUE,
    structure_name = "unstructured",
    lmer(angle ~ recipe + temp + (0 + recipe | replicate), cake, REML = REML,
         control = lmer_tight)),
  unstructured_ovary = case(
    "ovary", "follicles ~ sin1 + cos1 + (sin1 + cos1 | Mare)",
    ~ sin1 + cos1, ~ sin1 + cos1, "Mare", unstructured, y = "follicles",
    structure_name = "unstructured",
    lmer(follicles ~ sin1 + cos1 + (sin1 + cos1 | Mare), ovary, REML = REML,
         control = lmer_tight)),
  unstructured_bodyweight = case(
    "bodyweight", "weight ~ Time * Diet + (Time | Rat)",
    ~ Time * Diet, ~ Time, "Rat", unstructured, y = "weight", structure_name = "unstructured",
    lmer(weight ~ Time * Diet + (Time | Rat), bodyweight, REML = REML, control = lmer_tight)),
  slope_only_orthodont = case(
    "orthodont", "distance ~ age + Sex + (0 + age | Subject)",
    ~ age + Sex, ~ 0 + age, "Subject", unstructured, y = "distance",
    structure_name = "unstructured",
    lmer(distance ~ age + Sex + (0 + age | Subject), orthodont, REML = REML,
         control = lmer_tight)),
  two_terms_ovary = case(
    "ovary", "follicles ~ sin1 + cos1 + (1 | Mare) + (0 + sin1 + cos1 | Mare)",
    ~ sin1 + cos1, ~ sin1 + cos1, "Mare",
    function(q) blocks(list(1, unstructured), list(2, unstructured)), y = "follicles",
    structure_name = "blocks",
    lmer(follicles ~ sin1 + cos1 + (1 | Mare) + (0 + sin1 + cos1 | Mare), ovary, REML = REML,
         control = lmer_tight),
    lme(follicles ~ sin1 + cos1, ovary,
        list(Mare = pdBlocked(list(pdSymm(~ 1), pdSymm(~ sin1 + cos1 - 1)))), method = method,
        control = lme_tight)),
  two_terms_pastes = case(
    "pastes", "strength ~ 1 + (1 | batch) + identity(0 + cask | batch)",
    ~ 1, NULL, "batch", function(q) blocks(list(1, unstructured), list(3, identity_)),
    y = "strength", structure_name = "blocks",
    lme(strength ~ 1, pastes, list(batch = pdBlocked(list(pdIdent(~ 1), pdIdent(~ cask - 1)))),
        method = method, control = lme_tight),
    lmer(strength ~ 1 + (1 | batch / cask), pastes, REML = REML, control = lmer_tight)),
  interaction_group_cake = case(
    "cake", "angle ~ recipe + temp + (1 + I((temp - 200) / 10) | recipe:replicate)",
    ~ recipe + temp, ~ 1 + I((temp - 200) / 10), "mix", low_rank(1), y = "angle",
    boundary = TRUE, structure_name = "unstructured",
    lmer(angle ~ recipe + temp + (1 + I((temp - 200) / 10) | recipe:replicate), cake,
         REML = REML, control = lmer_tight)),
  weights_sleepstudy = case(
    "sleepstudy", "Reaction ~ Days + (Days | Subject)",
    ~ Days, ~ Days, "Subject", unstructured, y = "Reaction", weights = "w",
    structure_name = "unstructured",
    lmer(Reaction ~ Days + (Days | Subject), sleepstudy, weights = w, REML = REML,
         control = lmer_tight)),
  weights_orthodont = case(
    "orthodont", "distance ~ age * Sex + (1 | Subject)",
    ~ age * Sex, ~ 1, "Subject", unstructured, y = "distance", weights = "w",
    structure_name = "unstructured",
    lmer(distance ~ age * Sex + (1 | Subject), orthodont, weights = w, REML = REML,
         control = lmer_tight),
    lme(distance ~ age * Sex, orthodont, ~ 1 | Subject, weights = varFixed(~ 1 / w),
        method = method, control = lme_tight)),
  offset_sleepstudy = case(
    "sleepstudy", "Reaction ~ Days + (Days | Subject)",
    ~ Days, ~ Days, "Subject", unstructured, y = "Reaction", offset = "o",
    structure_name = "unstructured",
    lmer(Reaction ~ Days + (Days | Subject), sleepstudy, offset = o, REML = REML,
         control = lmer_tight)),
  weights_offset_sleepstudy = case(
    "sleepstudy", "Reaction ~ Days + (Days || Subject)",
    ~ Days, ~ Days, "Subject", diagonal, y = "Reaction", weights = "w", offset = "o",
    structure_name = "diag",
    lmer(Reaction ~ Days + (Days || Subject), sleepstudy, weights = w, offset = o, REML = REML,
         control = lmer_tight)),
  hepatitis_ri = case(
    "hepatitis", "log_titer ~ I(log_days - 6.5) + log_titer_baseline + (1 | infant)",
    ~ I(log_days - 6.5) + log_titer_baseline, ~ 1, "infant", unstructured, y = "log_titer",
    structure_name = "unstructured",
    lmer(log_titer ~ I(log_days - 6.5) + log_titer_baseline + (1 | infant), hepatitis,
         REML = REML, control = lmer_tight)),
  hepatitis_ris = case(
    "hepatitis",
    "log_titer ~ I(log_days - 6.5) + log_titer_baseline + (1 + I(log_days - 6.5) | infant)",
    ~ I(log_days - 6.5) + log_titer_baseline, ~ 1 + I(log_days - 6.5), "infant", low_rank(1),
    y = "log_titer", boundary = TRUE, structure_name = "unstructured",
    lmer(log_titer ~ I(log_days - 6.5) + log_titer_baseline + (1 + I(log_days - 6.5) | infant),
         hepatitis, REML = REML, control = lmer_tight))
)
# Z of (1 | batch) + identity(0 + cask | batch) has four columns that no single R formula gives.
Z_of <- function(name, spec, data) {
  if (name == "two_terms_pastes") return(cbind(1, model.matrix(~ 0 + cask, data)))
  model.matrix(spec$random, data)
}
# ... and its start comes from the lme4 fit of the same model, written as nested factors.
cases$two_terms_pastes$start <- function(method, REML) {
  fit <- eval(cases$two_terms_pastes$peers[[2]], list(REML = REML))
  V <- sapply(lme4::VarCorr(fit), c)
  list(D = diag(c(V[["batch"]], rep(V[["cask:batch"]], 3))), sigma2 = sigma(fit)^2)
}

# ---- run ----------------------------------------------------------------------------------------

one <- function(x) if (is.null(x)) NULL else jsonlite::unbox(x)  # a scalar, not an array
named <- function(x, names) lapply(as.list(setNames(x, names)), one)

run <- function(name, reml) {
  spec <- cases[[name]]; data <- data_of(spec$dataset)
  method <- if (reml) "REML" else "ML"
  group <- data[[spec$group]]
  ones <- rep(1, nrow(data))
  m <- list(y = data[[spec$y]] - if (is.null(spec$offset)) 0 * ones else data[[spec$offset]],
            X = model.matrix(spec$fixed, data), Z = Z_of(name, spec, data),
            w = if (is.null(spec$weights)) ones else data[[spec$weights]],
            rows = split(seq_len(nrow(data)), group))
  q <- ncol(m$Z); structure <- spec$structure(q)
  fits <- lapply(spec$peers, eval, list(REML = reml, method = method))
  start <- if (is.null(spec$start)) start_of(fits[[1]], q) else spec$start(method, reml)
  best <- polish(m, structure, c(structure$start(start$D), start$sigma2), reml)
  smallest <- min(eigen(best$D, only.values = TRUE)$values) / max(diag(best$D))
  stopifnot(if (spec$boundary) abs(smallest) < 1e-12 else smallest > 1e-6)
  peers <- sapply(fits, function(fit) as.numeric(logLik(fit)))
  K <- length(best$theta)
  if (spec$boundary) K <- q * (q + 1) / 2 + 1
  n_params <- ncol(m$X) + K
  ranef <- lapply(best$parts[1:5], function(u) {
    G <- best$D %*% t(u$Z) %*% u$Vi
    list(blup = drop(G %*% (m$y[u$rows] - u$X %*% best$beta)),
         cond_var = best$D - G %*% u$Z %*% best$D)
  })
  eta <- drop(m$X %*% best$beta) + data[[spec$y]] - m$y  # with the offset
  result <- list(
    loglik = one(best$loglik), AIC = one(-2 * best$loglik + 2 * n_params),
    BIC = one(-2 * best$loglik + log(nrow(data)) * n_params), n_params = one(n_params),
    beta = named(best$beta, colnames(m$X)), se_beta = named(sqrt(diag(best$vcov)), colnames(m$X)),
    beta_names = colnames(m$X), vcov_beta = unname(best$vcov), D = unname(best$D),
    sigma2 = one(best$sigma2), on_boundary = one(spec$boundary),
    ranef = list(levels = names(m$rows)[1:5], blup = t(sapply(ranef, `[[`, "blup")),
                 cond_var = lapply(ranef, function(r) unname(r$cond_var))),
    fitted_population_first10 = unname(eta[1:10]), polished_score_norm = one(best$decrement),
    peer_loglik = peers, checked_to = one(max(abs(peers - best$loglik)) / abs(best$loglik)))
  if (q == 1) result$ranef$blup <- t(result$ranef$blup)
  if (spec$structure_name %in% c("unstructured", "diag", "identity") && !spec$boundary)
    result <- c(result, list(theta = best$theta, info_expected = best$info))
  message(sprintf("%-26s %-4s %.10f  score %.0e  peers %s", name, method, best$loglik,
                  best$decrement, paste(sprintf("%+.1e", peers - best$loglik), collapse = " ")))
  result
}

version_of <- function(package) as.character(packageVersion(package))
describe <- function(name) {
  spec <- cases[[name]]; data <- data_of(spec$dataset)
  factors <- intersect(names(Filter(is.factor, data)), all.vars(spec$fixed))
  list(dataset = one(spec$dataset), formula = one(spec$formula), weights = one(spec$weights),
       offset = one(spec$offset), structure = one(spec$structure_name),
       columns = lapply(data[factors], function(f) list(type = one("factor"), levels = levels(f))),
       commands = sapply(spec$peers, function(e) paste(trimws(deparse(e, 500)), collapse = " ")),
       fits = list(ML = run(name, FALSE), REML = run(name, TRUE)))
}
out <- list(
  software = lapply(c(list(R = as.character(getRversion())), lapply(
    list(lme4 = "lme4", nlme = "nlme", glmmTMB = "glmmTMB"), version_of)), one),
  cases = sapply(names(cases), describe, simplify = FALSE))
jsonlite::write_json(out, "tests/oracle/expected/structures.json", digits = NA, pretty = TRUE,
                     null = "null")
