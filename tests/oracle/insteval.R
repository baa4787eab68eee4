# Expected numbers for InstEval (lme4): 73,421 ratings of 1,128 lecturers by 2,972 students.
#
#   Rscript tests/oracle/insteval.R      (from the root of the project; some minutes)
#
# needs R with lme4, numDeriv and jsonlite and writes tests/oracle/expected/insteval.json.
# tests/oracle/data/insteval.npz holds the same data: lme4's labels as integers.
#
# lmer's optimum is polished by Newton steps. The derivative of the deviance (ML, profiled) by the
# logarithm of a standard deviation theta_f, relative to sigma, is 2 [m_f - sum (b^2 + Var(b | y)) /
# sigma_f^2]: exact, where differences of the deviance would leave the fifth digit in doubt.

suppressPackageStartupMessages(library(lme4))
invisible(Sys.setlocale("LC_COLLATE", "C"))
number <- function(f) as.integer(as.character(f))
data <- with(InstEval, data.frame(y = y, service = number(service), s = number(s), d = number(d),
                                  dept = factor(sprintf("D%02d", number(dept)))))
one <- jsonlite::unbox
named <- function(x, names) lapply(as.list(setNames(x, names)), one)

fit <- function(formula) {
  parsed <- lFormula(formula, data, REML = FALSE)
  deviance <- do.call(mkLmerDevfun, parsed)
  theta <- optimizeLmer(deviance, optimizer = "bobyqa",
                        control = list(rhobeg = 0.02, rhoend = 1e-7))$par
  H <- numDeriv::hessian(function(x) deviance(exp(x)), log(theta))
  for (iteration in 0:4) {
    opt <- list(par = theta, fval = deviance(theta), conv = 0, message = NULL)
    model <- mkMerMod(environment(deviance), opt, parsed$reTrms, fr = parsed$fr)
    effects <- ranef(model, condVar = TRUE)
    score <- sapply(names(parsed$reTrms$cnms), function(g) {
      b <- effects[[g]][, 1]
      2 * (length(b) - sum(b^2 + attr(effects[[g]], "postVar")) / VarCorr(model)[[g]][1])
    })
    step <- solve(H, score)
    size <- sqrt(sum(step * score) / 2)  # in standard errors
    message(sprintf("deviance %.9f, step %.1e standard errors", opt$fval, size))
    if (size < 1e-8) break
    theta <- theta * exp(-step)
  }
  groups <- sapply(names(effects), simplify = FALSE, function(g) {
    labels <- rownames(effects[[g]])
    shown <- labels[c(1:3, length(labels) - 1:0)]
    rows <- match(shown, labels)
    list(names = "(Intercept)", n_levels = one(length(labels)),
         cov = matrix(VarCorr(model)[[g]], 1, 1), levels = shown,
         blup = matrix(effects[[g]][rows, 1]),
         cond_var = lapply(attr(effects[[g]], "postVar")[1, 1, rows], matrix, 1, 1))
  })
  beta <- fixef(model); vcov <- unname(as.matrix(vcov(model)))
  list(formula = one(paste(trimws(deparse(formula, 500)), collapse = " ")),
       columns = list(dept = list(type = one("factor"), levels = levels(data$dept))),
       deviance = one(opt$fval), polished_score_norm = one(size), sigma2 = one(sigma(model)^2),
       beta_names = names(beta), beta = named(beta, names(beta)),
       se_beta = named(sqrt(diag(vcov)), names(beta)), vcov_beta = vcov, groups = groups)
}
out <- list(
  software = list(R = one(as.character(getRversion())),
                  lme4 = one(as.character(packageVersion("lme4")))),
  cases = list(three_factors = fit(y ~ 1 + service + (1 | s) + (1 | d) + (1 | dept)),
               two_factors = fit(y ~ 1 + service * dept + (1 | s) + (1 | d))))
jsonlite::write_json(out, "tests/oracle/expected/insteval.json", digits = NA, pretty = TRUE)
