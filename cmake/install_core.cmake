# The headers and a config package: find_package(lmmfast) gives the target lmmfast::core.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(config_dir ${CMAKE_INSTALL_DATADIR}/cmake/lmmfast)
install(DIRECTORY cpp/include/lmmfast DESTINATION include FILES_MATCHING PATTERN "*.hpp")
install(TARGETS lmmfast_core EXPORT lmmfast)
install(EXPORT lmmfast NAMESPACE lmmfast:: FILE lmmfastTargets.cmake DESTINATION ${config_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/lmmfastConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES cmake/lmmfastConfig.cmake ${PROJECT_BINARY_DIR}/lmmfastConfigVersion.cmake
        DESTINATION ${config_dir})
